"""The decoding loop: one prefill over the prompts, then one token for each row at a step."""

import tensorflow as tf

from tfheads.generation.sampling import Options, next_token


def decode(model, input_ids: tf.Tensor, lengths: tf.Tensor, options: Options, capacity, sample: bool) -> tf.Tensor:
    """New tokens for each row, a pure function of tensors that XLA can compile.

    All rows write the same slot of the cache at a step, each row carries its own position: a padded row generates
    what it would generate alone.

    Args:
        model: a causal language model.
        input_ids: prompts `[batch, time]`, padded on the right.
        lengths: real tokens of each prompt `[batch]`, at least 1.
        options: see `Options`.
        capacity: how many new tokens there is room for; a number, or a scalar tensor outside XLA.
        sample: whether tokens are drawn.

    Returns:
        `[batch, capacity]`, filled with `pad_token_id` behind each row's end.
    """
    rows, width = tf.shape(input_ids)[0], tf.shape(input_ids)[1]
    columns = tf.range(width)[None, :]
    prompt = {
        "input_ids": input_ids,
        "attention_mask": columns < lengths[:, None],
        "position_ids": columns,
    }
    slots = (input_ids.shape[1] or width) + capacity
    state = model.backbone.decoding_state(prompt, slots)
    hidden, state = model.backbone.extend(prompt, state, 0)
    logits = _logits(model, tf.gather(hidden, lengths - 1, axis=1, batch_dims=1))

    def choose(step, logits, tokens, ended):
        chosen = next_token(logits, step, options, sample)
        token = tf.where(ended, options.pad_token_id, chosen)
        column = tf.range(capacity)[None, :] == step
        tokens = tf.where(column, token[:, None], tokens)
        ended = ended | tf.reduce_any(token[:, None] == options.eos_token_ids[None, :], axis=1)
        return chosen, tokens, ended  # the padding need not be a token that the model knows

    def goes_on(step, token, tokens, ended, state):
        return (step < options.max_new_tokens) & ~tf.reduce_all(ended)

    def body(step, token, tokens, ended, state):
        positions = (lengths + step - 1)[:, None]
        hidden, state = model.backbone.extend(
            {"input_ids": token[:, None], "position_ids": positions}, state, width + step - 1
        )
        token, tokens, ended = choose(step, _logits(model, hidden[:, 0]), tokens, ended)
        return step + 1, token, tokens, ended, state

    tokens = tf.fill(tf.stack([rows, capacity]), options.pad_token_id)
    tokens = tf.ensure_shape(tokens, [input_ids.shape[0], capacity if isinstance(capacity, int) else None])
    first, tokens, ended = choose(tf.constant(0), logits, tokens, tf.zeros_like(lengths, tf.bool))
    _, _, tokens, _, _ = tf.while_loop(goes_on, body, (tf.constant(1), first, tokens, ended, state))
    return tokens


def _logits(model, hidden: tf.Tensor) -> tf.Tensor:
    """Float32 logits `[batch, vocabulary]` of hidden values `[batch, hidden]`."""
    table = tf.convert_to_tensor(model.backbone.token_table)
    output = model.head({"last_hidden_state": hidden[:, None]}, token_table=table, training=False)
    return tf.cast(output["logits"][:, 0], tf.float32)

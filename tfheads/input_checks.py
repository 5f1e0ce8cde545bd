"""What the inputs of a backbone must be, in one sentence where they are not."""

import difflib
from collections.abc import Mapping

import tensorflow as tf

from tfheads.backbones import EmbeddedStack, EncoderDecoder
from tfheads.checks import require, same_shape, within, zeros_and_ones


def check_inputs(backbone: EmbeddedStack | EncoderDecoder, inputs: Mapping, vocab_size: int | None) -> list:
    """Requires inputs that can be encoded.

    Returns:
        Inside a graph the operations that check what is known only when it runs; none of them works under XLA.

    Raises:
        ValueError: an unknown input, neither or both of `input_ids` and `inputs_embeds`, a wrong shape or type, too
            long; and where values are known, ids, types or positions for which there is no row, a mask of other values.
    """
    for name in inputs:
        if name not in backbone.input_names:
            near = difflib.get_close_matches(name, backbone.input_names, n=1, cutoff=0.0)[0]
            accepted = ", ".join(backbone.input_names)
            raise ValueError(f"input {name!r} is not known, did you mean {near!r}; accepted are {accepted}")
    if not backbone.encodes_source:
        return _check_part(backbone, inputs, vocab_size)
    source = backbone.source(inputs)
    checks = _check_part(backbone.encoder, source, backbone.input_vocab_size)
    target = backbone.target(inputs)
    return checks + _check_part(backbone.decoder, target, vocab_size, "decoder_") + _check_batch(source, target)


def _check_part(backbone: EmbeddedStack, inputs, vocab_size, prefix: str = "") -> list:
    """The checks of what one stack reads; `prefix` is what its inputs are called by outside."""
    ids, embeds = f"{prefix}input_ids", f"{prefix}inputs_embeds"
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError(f"give {ids} or {embeds}, one of them; got {', '.join(inputs) or 'nothing'}")
    main = inputs.get("input_ids", inputs.get("inputs_embeds"))
    rank = 2 if "input_ids" in inputs else 3
    if main.shape.rank not in (None, rank):
        name = ids if rank == 2 else embeds
        raise ValueError(
            f"{name} must have {rank} axes [batch, time{', hidden' * (rank == 3)}], got shape {main.shape}"
        )
    return [*_check_rows(backbone, inputs, vocab_size, prefix), *_check_shapes(backbone, inputs, main, prefix)]


def _check_batch(source, target) -> list:
    rows, wanted = (one.get("input_ids", one.get("inputs_embeds")) for one in (target, source))
    message = "decoder inputs must have as many rows as the source"
    if not rows.shape[:1].is_compatible_with(wanted.shape[:1]):
        raise ValueError(f"{message}, {wanted.shape[0]}, got {rows.shape[0]}")
    if rows.shape[0] is not None and wanted.shape[0] is not None:
        return []
    return require(tf.shape(rows)[0] == tf.shape(wanted)[0], message, tf.shape(rows)[0])


def _check_shapes(backbone, inputs, main, prefix) -> list:
    limit, length = backbone.length_limit, main.shape[1]
    message = f"{prefix}input_ids must have at most {limit} tokens in a row, the positions of the model"
    if limit is not None and length is not None and length > limit:
        raise ValueError(f"{message}, got {length}")
    checks = [] if limit is None or length is not None else require(tf.shape(main)[1] <= limit, message, tf.shape(main))
    for name in ("attention_mask", "token_type_ids", "position_ids"):
        value = inputs.get(name)
        if value is not None and not (name == "position_ids" and value.shape[:1] == [1]):  # one row serves all
            checks += same_shape(prefix + name, value, main, f"{prefix}input_ids")
        elif value is not None:
            checks += same_shape(prefix + name, value, main[:1], f"{prefix}input_ids")
    encoded, mask = inputs.get("encoder_hidden_states"), inputs.get("encoder_attention_mask")
    if encoded is not None and getattr(backbone.stack.blocks[0], "cross_attention", None) is None:
        raise ValueError("encoder_hidden_states needs a config with add_cross_attention=True, got False")
    if mask is not None and encoded is None:
        raise ValueError("encoder_attention_mask needs encoder_hidden_states, got none")
    if mask is not None:
        checks += same_shape("encoder_attention_mask", mask, encoded, "encoder_hidden_states")
    return checks


def _check_rows(backbone, inputs, vocab_size, prefix) -> list:
    """Requires that tables have the rows that are asked for."""
    checks, limit = [], backbone.length_limit
    highest = {
        "input_ids": vocab_size and vocab_size - 1,
        "token_type_ids": backbone.embeddings.type_limit and backbone.embeddings.type_limit - 1,
        "position_ids": limit and limit + backbone.first_position - 1,
    }
    for name, high in highest.items():
        if inputs.get(name) is not None:
            checks += within(prefix + name, inputs[name], 0, high)
    for name in ("attention_mask", "encoder_attention_mask"):
        if inputs.get(name) is not None:
            checks += zeros_and_ones(prefix + name, inputs[name])
    return checks

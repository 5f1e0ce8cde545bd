"""Signatures of causal language models: text in, text with its continuation out."""

import tensorflow as tf

from tfheads.generation.plan import Prompt
from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.generation import GenerationBundle
from tfheads.serving.rows import last_tokens
from tfheads.serving.token_level import valid_text


class CausalLMBundle(GenerationBundle):
    """A causal language model with its tokenizer and the whole generation loop.

    Args:
        model: a causal language model.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of `serving_default`, see `Served.export_serving`.

    Raises:
        ValueError: an option out of range, or a model that cannot generate.
    """

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        config = model.generation_config
        if config.min_length:
            raise ValueError("generation_config.min_length must be 0 for an export: give min_new_tokens")
        super().__init__(model, graph, tokenizer, options)
        begin = tokenizer.bos_token_id if config.bos_token_id is None else config.bos_token_id
        self.first_token = -1 if begin is None else begin

    def prompt(self, text: tf.Tensor, most_new: tf.Tensor) -> tuple[Prompt, tf.Tensor]:
        ids, lengths = last_tokens(self.tokenize(text), self.limit - most_new)
        empty = lengths == 0
        ids = tf.pad(ids, [[0, 0], [0, tf.cast(tf.shape(ids)[1] == 0, tf.int32)]])
        begin = tf.cast(tf.range(tf.shape(ids)[1]) == 0, tf.int32) * max(self.first_token, 0)
        ids = tf.where(empty[:, None], begin[None, :], ids)
        # There may be nothing to begin an empty text with.
        return Prompt(ids, tf.maximum(lengths, 1), {}), ~empty | (self.first_token >= 0)

    def answer(self, text: tf.Tensor, prompt: Prompt, new: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        # The new tokens alone would lose the space that SentencePiece's decoders take from the first token.
        given = tf.RaggedTensor.from_tensor(prompt.input_ids, lengths=prompt.lengths)
        whole, before = (self.detokenize(ids) for ids in (tf.concat([given, tf.cast(new, given.dtype)], 1), given))
        lengths, begin = (tf.strings.length(one, unit="UTF8_CHAR") for one in (whole, before))
        new_text = tf.strings.substr(whole, tf.minimum(begin, lengths), lengths, unit="UTF8_CHAR")
        return {"generated_text": tf.strings.join([valid_text(text), new_text]), "new_text": new_text}

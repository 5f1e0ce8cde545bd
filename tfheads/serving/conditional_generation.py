"""Signatures of decoders that write a target behind a source: the source in, the target out."""

import tensorflow as tf

from tfheads.generation.plan import Prompt
from tfheads.serving.generation import GenerationBundle
from tfheads.serving.rows import first_tokens


class ConditionalGenerationBundle(GenerationBundle):
    """A language model that writes a target from a source, with its tokenizer and the whole generation loop."""

    shortest_prompt = 2  # a token of the source, and the separator

    def prompt(self, text: tf.Tensor, most_new: tf.Tensor) -> tuple[Prompt, tf.Tensor]:
        separator = self.model.separator_token_id
        ids, lengths = first_tokens(self.tokenize(text), self.limit - most_new - 1)
        ids = tf.pad(ids, [[0, 0], [0, 1]])
        behind = tf.range(tf.shape(ids)[1])[None, :] == lengths[:, None]
        return Prompt(tf.where(behind, separator, ids), lengths + 1, {}), lengths > 0

    def answer(self, text: tf.Tensor, prompt: Prompt, new: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        return {"generated_text": self.detokenize(new)}

"""The decoder of tokenizers for speech inside the graph: texts without prompts and times."""

import tensorflow as tf
import transformers

from tfheads.preprocessing.decoders import Decoder

TIMES = r"<\|(\p{Nd}+\.\p{Nd}+)\|>"
PROMPT, START = "<|startofprev|>", "<|startoftranscript|>"


def without_prompts_and_times(decoder: Decoder, tokenizer: transformers.PreTrainedTokenizerBase):
    """The decoder itself, or for a tokenizer that knows times (Whisper's) one that leaves them out."""
    if not hasattr(tokenizer, "timestamp_pat"):
        return decoder
    return SpeechDecoder(decoder, *tokenizer.convert_tokens_to_ids([PROMPT, START]))


class SpeechDecoder(tf.Module):
    """Leaves times out of texts and, where special tokens are left out, a prompt at the beginning.

    Args:
        decoder: makes texts of ids.
        prompt: the id that a prompt begins with.
        start: the id where it ends and the transcript begins; where it is lacking, nothing follows.
    """

    def __init__(self, decoder: Decoder, prompt: int, start: int):
        super().__init__()
        self.decoder, self.prompt, self.start = decoder, prompt, start

    def __call__(self, ids: tf.RaggedTensor, skip_special_tokens: bool = True) -> tf.Tensor:
        """The texts `[batch]` of ids `[batch, (length)]`."""
        if skip_special_tokens:
            ids = self._without_prompt(ids)
        return tf.strings.regex_replace(self.decoder(ids, skip_special_tokens), TIMES, "")

    def _without_prompt(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        rows = ids.value_rowids()
        first = tf.gather(tf.concat([ids.values, [-1]], 0), ids.row_splits[:-1])
        seen = tf.concat([[0], tf.cumsum(tf.cast(ids.values == self.start, tf.int32))], 0)
        started = seen[1:] > tf.gather(seen, tf.gather(ids.row_splits, rows))
        return tf.ragged.boolean_mask(ids, ids.with_values(started | (tf.gather(first, rows) != self.prompt)))

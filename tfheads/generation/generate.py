"""`model.generate`: prompts in, prompts with new tokens out."""

import random
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfheads.generation.loop import decode
from tfheads.generation.sampling import Options
from tfheads.generation.settings import Settings, settings
from tfheads.inputs import as_array

SMALLEST_BUCKET = 16


class Generates:
    """Mixin of the models that generate."""

    def generate(
        self,
        inputs=None,
        attention_mask=None,
        *,
        generation_config=None,
        seed: int | None = None,
        jit_compile: bool = True,
        **options,
    ) -> np.ndarray:
        """Goes on with each prompt, token by token.

        Prompts are padded to a bucket (16, 32, 64, ... tokens) and so is the room for new tokens, so that prompts of
        other lengths use the same compiled function.

        Args:
            inputs: `input_ids` `[batch, time]`, or a mapping with `input_ids` and `attention_mask` as a tokenizer
                makes it; None for one row that begins with `bos_token_id`.
            attention_mask: `[batch, time]`, 1 for real tokens; padding may stand on either side.
            generation_config: in place of the model's own `generation_config`.
            seed: for sampling; None draws one from Keras' global seed.
            jit_compile: whether XLA compiles the loop.
            options: transformers' names: `max_new_tokens` (20), `max_length`, `min_new_tokens`, `min_length`,
                `do_sample` (False), `temperature`, `top_k`, `top_p`, `eos_token_id` (one or several), `pad_token_id`.

        Returns:
            int32 `[batch, time + new]`: the prompts as given, then the new tokens; rows that ended are padded.

        Raises:
            ValueError: options or inputs that cannot be, in one sentence.
        """
        config = generation_config or self.generation_config
        input_ids, mask = _prompts(inputs, attention_mask, options, config)
        lengths = mask.sum(1).astype("int32")
        self._check_prompts(input_ids, lengths)
        asked = settings(config, options, lengths, self.backbone.length_limit, self.vocab_size)
        new = self._new_tokens(_packed(input_ids, mask, lengths), lengths, asked, seed, jit_compile)
        ends = np.isin(new, asked.eos_token_ids)
        used = np.where(ends.any(1), ends.argmax(1) + 1, asked.max_new_tokens)
        return np.concatenate([input_ids, new[:, : used.max()]], axis=1)

    def _check_prompts(self, input_ids, lengths):
        if not self.backbone.causal:
            raise ValueError(f"{type(self).__name__} cannot generate: set is_decoder=True in its config")
        if input_ids.size and (input_ids.min() < 0 or input_ids.max() >= self.vocab_size):
            wrong = input_ids.min() if input_ids.min() < 0 else input_ids.max()
            raise ValueError(f"input_ids must be between 0 and {self.vocab_size - 1}, got {wrong}")
        if not len(lengths) or not lengths.all():
            raise ValueError("input_ids must have a real token in every row, got a row without one")

    def _new_tokens(self, packed, lengths, asked: Settings, seed, jit_compile) -> np.ndarray:
        width, capacity = bucket(packed.shape[1]), bucket(asked.max_new_tokens)
        width = min(width, self.backbone.length_limit or width)  # there are no positions for more
        packed = np.pad(packed, ((0, 0), (0, width - packed.shape[1])))
        tokens = self._decoder(asked.do_sample, jit_compile)(
            tf.constant(packed), tf.constant(lengths), _options(asked, seed), capacity
        )
        return tokens.numpy()[:, : asked.max_new_tokens]

    def _decoder(self, sample: bool, jit_compile: bool):
        """The loop as a compiled function; one for drawing and one for taking the likeliest token."""
        decoders = self.__dict__.setdefault("_decoders", {})
        if (sample, jit_compile) not in decoders:

            def run(input_ids, lengths, options, capacity):
                return decode(self, input_ids, lengths, options, capacity, sample)

            decoders[sample, jit_compile] = tf.function(run, jit_compile=jit_compile, autograph=False)
        return decoders[sample, jit_compile]


def bucket(length: int) -> int:
    """The next length for which a function is compiled: a power of two, at least 16."""
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def _options(asked: Settings, seed: int | None) -> Options:
    seed = random.randint(0, 2**31 - 1) if seed is None else seed
    ends = asked.eos_token_ids or (-1,)
    return Options(
        max_new_tokens=tf.constant(asked.max_new_tokens),
        min_new_tokens=tf.constant(asked.min_new_tokens),
        temperature=tf.constant(asked.temperature),
        top_k=tf.constant(asked.top_k),
        top_p=tf.constant(asked.top_p),
        seed=tf.constant([seed, 0], tf.int32),
        eos_token_ids=tf.constant([*ends, *[-1] * (bucket(len(ends)) // 4 - len(ends))], tf.int32),
        pad_token_id=tf.constant(asked.pad_token_id),
    )


def _prompts(inputs, attention_mask, options, config) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` and boolean mask `[batch, time]` from what the caller gave."""
    if isinstance(inputs, Mapping):
        options.update(inputs)
        inputs, attention_mask = None, options.pop("attention_mask", attention_mask)
    if "input_ids" in options:
        inputs = options.pop("input_ids")
    types = options.pop("token_type_ids", None)
    if types is not None and np.asarray(types).any():
        raise ValueError("token_type_ids must be 0 where text is generated, got others")
    if inputs is None:
        if config.bos_token_id is None:
            raise ValueError("inputs must be given: the generation config has no bos_token_id to begin with")
        inputs = [[config.bos_token_id]]
    try:
        input_ids = np.asarray(inputs)
    except ValueError:
        input_ids = np.asarray(None)
    if input_ids.ndim != 2 or input_ids.dtype.kind not in "iu":
        raise ValueError("input_ids must be whole numbers [batch, time] in rows of one length, got something else")
    mask = np.ones(input_ids.shape, bool) if attention_mask is None else as_array("attention_mask", attention_mask)
    if mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask must have the shape of input_ids {input_ids.shape}, got {mask.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("attention_mask must be 1 for real tokens and 0 for padding, got other values")
    return input_ids.astype("int64").clip(-1, 2**31 - 1).astype("int32"), mask.astype(bool)


def _packed(input_ids, mask, lengths) -> np.ndarray:
    """The prompts with their padding on the right, as wide as the longest."""
    order = np.argsort(~mask, axis=1, kind="stable")
    return np.take_along_axis(np.where(mask, input_ids, 0), order, axis=1)[:, : lengths.max()]

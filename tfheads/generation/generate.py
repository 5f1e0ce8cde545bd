"""`model.generate`: prompts in, prompts with new tokens out."""

import functools
import random
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfheads.generation.loop import decode
from tfheads.generation.plan import Generated, Options, Plan
from tfheads.generation.processors import PROCESSORS
from tfheads.generation.prompts import Given, bucket, given_prompts, packed
from tfheads.generation.settings import Settings, settings
from tfheads.generation.stop_strings import stop_table
from tfheads.generation.streaming import stepper, stream
from tfheads.layers.projections import Projection
from tfheads.outputs import ModelOutput


class Generates:
    """Mixin of the models that generate."""

    def generate(
        self,
        inputs=None,
        attention_mask=None,
        *,
        generation_config=None,
        streamer=None,
        tokenizer=None,
        seed: int | None = None,
        jit_compile: bool = True,
        **options,
    ) -> np.ndarray | ModelOutput:
        """Goes on with each prompt, token by token.

        Prompts are padded to a bucket (16, 32, 64, ... tokens) and so is the room for new tokens, so that prompts of
        other lengths use the same compiled function.

        Args:
            inputs: `input_ids` `[batch, time]`, or a mapping with `input_ids` and `attention_mask` as a tokenizer
                makes it; None for one row that begins with `bos_token_id`.
            attention_mask: `[batch, time]`, 1 for real tokens; padding may stand on either side.
            generation_config: in place of the model's own `generation_config`.
            streamer: an object with `put(token ids)` and `end()`, such as `transformers.TextStreamer`: it gets the
                prompt, then each token when it is made.
            tokenizer: needed for `stop_strings`.
            seed: for sampling; None draws one from Keras' global seed.
            jit_compile: whether XLA compiles the loop.
            options: transformers' names: `max_new_tokens` (20), `num_beams`, `do_sample`, `repetition_penalty`, ...;
                docs/generation.md lists them.

        Returns:
            int32 `[batch * num_return_sequences, time + new]`: the prompts as given (for encoder-decoders what the
            target began with), then the new tokens; rows that ended are padded. With `return_dict_in_generate` a
            `ModelOutput`: these `sequences` and, for each step, `scores` and `logits` `[rows, vocabulary]` if asked
            for; of beams `sequences_scores` and `beam_indices` too.

        Raises:
            ValueError: options or inputs that cannot be, in one sentence.
        """
        given, asked, made = self._generated(
            inputs, attention_mask, generation_config, streamer, tokenizer, seed, jit_compile, options
        )
        lengths = made.lengths
        prompts = np.repeat(given.input_ids, len(lengths) // len(given.input_ids), axis=0)
        sequences = np.concatenate([prompts, made.tokens[:, : lengths.max()]], axis=1)
        return _output(sequences, made) if asked.return_dict else sequences

    def new_tokens(
        self,
        inputs=None,
        attention_mask=None,
        *,
        generation_config=None,
        streamer=None,
        tokenizer=None,
        seed: int | None = None,
        jit_compile: bool = True,
        **options,
    ) -> list[np.ndarray]:
        """As `generate`, but of each row its new tokens alone, without padding."""
        _, _, made = self._generated(
            inputs, attention_mask, generation_config, streamer, tokenizer, seed, jit_compile, options
        )
        return [row[:length] for row, length in zip(made.tokens, made.lengths, strict=True)]

    def _generated(
        self, inputs, attention_mask, config, streamer, tokenizer, seed, jit_compile, options
    ) -> tuple[Given, Settings, Generated]:
        """What was given, what was asked for, and what was made of it, as arrays."""
        config = self.generation_config if config is None else config
        options = dict(options)
        given = given_prompts(self, inputs, attention_mask, options, config)
        limit = self.backbone.generation_limit
        asked = settings(config, options, given.lengths, limit, self.vocab_size)
        values = arrays(asked, tokenizer)
        plan = plan_of(asked.search, values, asked.outputs)
        prompt = packed(given, limit, self.backbone.length_limit)
        capacity = bucket(asked.max_new_tokens)
        values = option_tensors(asked, values, seed)
        if streamer is None:
            made = self._decoder(plan, jit_compile)(prompt, values, capacity)
        else:
            made = self._streamed(streamer, given, plan, prompt, values, capacity, jit_compile)
        return given, asked, tf.nest.map_structure(lambda tensor: tensor.numpy(), made)

    def _decoder(self, plan: Plan, jit_compile: bool):
        """The loop as a compiled function, one for each plan."""
        decoders = self.__dict__.setdefault("_decoders", {})
        key = plan, jit_compile, Projection.attachments
        if key not in decoders:
            # A partial, as TensorFlow warns of functions that are traced often, and takes closures of one code for one.
            loop = functools.partial(decode, self, plan)
            decoders[key] = tf.function(loop, jit_compile=jit_compile, autograph=False)
        return decoders[key]

    def _streamed(self, streamer, given, plan, prompt, values, capacity, jit_compile) -> Generated:
        if plan.search.revises:
            raise ValueError("streamer needs num_beams=1: beams change their minds")
        steppers = self.__dict__.setdefault("_steppers", {})
        key = plan, jit_compile, Projection.attachments
        if key not in steppers:
            steppers[key] = stepper(self, plan, jit_compile)
        streamer.put(given.input_ids)
        made = stream(steppers[key], plan, prompt, values, capacity, streamer.put)
        streamer.end()
        return made


def arrays(asked: Settings, tokenizer) -> dict:
    """What the search, the processors and the ends of rows read, by the option's name.

    Raises:
        ValueError: stop strings without a tokenizer.
    """
    if not asked.stop_strings:
        return dict(asked.values)
    if tokenizer is None:
        raise ValueError(f"stop_strings needs the argument tokenizer, got none for {asked.stop_strings!r}")
    return {**asked.values, "stop_strings": stop_table(asked.stop_strings, tokenizer)}


def plan_of(search, values: Mapping, outputs: frozenset[str] = frozenset()) -> Plan:
    """The plan of a search that reads these values."""
    return Plan(search, frozenset(PROCESSORS.keys() & values), "stop_strings" in values, outputs)


def option_tensors(asked: Settings, values: dict, seed: int | None) -> Options:
    """The options of the compiled loop."""
    seed = random.randint(0, 2**31 - 1) if seed is None else seed
    ends = asked.eos_token_ids or (-1,)
    return Options(
        max_new_tokens=tf.constant(asked.max_new_tokens),
        eos_token_ids=tf.constant([*ends, *[-1] * (bucket(len(ends)) // 4 - len(ends))], tf.int32),
        pad_token_id=tf.constant(asked.pad_token_id),
        seed=tf.constant([seed, 0], tf.int32),
        values=tf.nest.map_structure(tf.constant, values),
    )


def _output(sequences, made: Generated) -> ModelOutput:
    kept = {name: tuple(values[: made.steps]) for name, values in made.kept.items()}
    found = dict(made.found)
    if "beam_indices" in found:
        found["beam_indices"] = found["beam_indices"][:, : made.lengths.max()]
        if "scores" not in kept:
            del found["sequences_scores"]
    return ModelOutput(sequences=sequences, **{**kept, **found})

"""Backbones: the contract between a family and everything else."""

import difflib
from collections.abc import Mapping

import keras
import tensorflow as tf
import transformers
from keras import ops

from tfheads.layers.part import Part, dtype_scope
from tfheads.layers.stack import DecodingState, Stack

# Keys that no layer reads in any family, and who honours them instead.
INERT = {
    "use_cache": "generation always caches",
    "bos_token_id": "read by generation",
    "eos_token_id": "read by generation",
    "pad_token_id": "read by generation and by tokenizers",
    "initializer_range": "read when weights are drawn",
    "tie_word_embeddings": "read by heads that have an output table",
    "is_encoder_decoder": "a property of the family",
    "chunk_size_feed_forward": "saves memory in PyTorch, changes no number",
}


class Backbone(Part):
    """One stack over embedded inputs; a family says of which parts.

    A family sets the class attributes and writes `make_embeddings` and `make_stack`. Heads, generation, pipelines,
    serving and the trainer use only what stands here.

    Attributes:
        class_prefix: how the family's class names begin, such as "GPT2".
        class_names: public class names of tasks for which prefix + suffix is not the name.
        checkpoint_prefix: what backbone tensors are called below in a checkpoint with a head.
        heads: for each task a function of the config that makes the head, None for no head.
        input_names: the inputs that the family understands.
        inert: config keys that no layer needs to read, with the reason.
        reference: the paper and transformers' class.
    """

    class_prefix: str
    class_names: dict[str, tuple[str, ...]] = {}
    checkpoint_prefix: str
    heads: dict
    input_names: tuple[str, ...] = ("input_ids", "attention_mask", "position_ids", "inputs_embeds")
    inert: dict[str, str] = {}
    reference: str = ""

    def __init__(self, config: transformers.PreTrainedConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        reader = ConfigReader(config)
        with dtype_scope(self.dtype_policy):
            self.embeddings = self.make_embeddings(reader)
            self.stack = self.make_stack(reader)
        self.check_config(reader)

    @staticmethod
    def make_embeddings(config) -> keras.layers.Layer:
        """The family's embeddings."""
        raise NotImplementedError

    @staticmethod
    def make_stack(config) -> Stack:
        """The family's stack."""
        raise NotImplementedError

    @property
    def causal(self) -> bool:
        """Whether tokens see only what came before, so that the backbone can generate."""
        return self.stack.causal

    @property
    def length_limit(self) -> int | None:
        """The longest input, in tokens; None for no limit."""
        return self.embeddings.length_limit

    @property
    def token_table(self):
        """The token embeddings `[vocabulary, hidden]`, for heads that are tied to them."""
        return self.embeddings.token.embeddings

    def initial_scale(self, path: str) -> float:
        """By what the standard deviation of a new weight is multiplied; `path` is its layer's attribute path."""
        return 1.0

    def position_ids(self, inputs: Mapping, length: int):
        """Positions `[1 or batch, length]` when the caller gives none: counted from the left, padding included."""
        return ops.arange(length)[None, :]

    def call(self, inputs: Mapping, training=None) -> dict:
        """Encodes `inputs`.

        Args:
            inputs: tensors by name; `input_ids` `[batch, time]` or `inputs_embeds` `[batch, time, hidden]`, and
                optionally `attention_mask` `[batch, time]` (1 for real tokens), `position_ids`, `token_type_ids`,
                `encoder_hidden_states`, `encoder_attention_mask`.

        Returns:
            `last_hidden_state` `[batch, time, hidden]` and `hidden_states`, the inputs of each block and the result.
        """
        embedded, real, positions = self._embed(inputs, training)
        hidden, _, layers = self.stack(
            embedded, real=real, positions=positions, training=training, **self._memory(inputs)
        )
        return {"last_hidden_state": hidden, "hidden_states": tuple(layers)}

    def decoding_state(self, inputs: Mapping, slots: int) -> DecodingState:
        """What generation starts from: an empty cache of `slots` tokens, and the encoder's output if there is one."""
        batch = ops.shape(inputs["input_ids"])[0]
        return self.stack.decoding_state(batch, slots, **self._memory(inputs))

    def extend(self, inputs: Mapping, state: DecodingState, slot) -> tuple:
        """Encodes the next tokens of each row after those in `state`.

        Args:
            inputs: `input_ids` `[batch, time]`, `attention_mask` and `position_ids` of the new tokens.
            state: what came before.
            slot: scalar, the slot of the first new token.

        Returns:
            The hidden values `[batch, time, hidden]` and the new state.
        """
        embedded, real, positions = self._embed(inputs, training=False)
        hidden, state, _ = self.stack(embedded, real=real, positions=positions, state=state, slot=slot, training=False)
        return hidden, state

    def _embed(self, inputs, training):
        given = inputs["inputs_embeds"] if inputs.get("input_ids") is None else inputs["input_ids"]
        positions, real = inputs.get("position_ids"), inputs.get("attention_mask")
        if positions is None:
            positions = self.position_ids(inputs, ops.shape(given)[1])
        real = None if real is None else ops.cast(real, "bool")
        return self.embeddings(inputs, positions=positions, training=training), real, positions

    def _memory(self, inputs) -> dict:
        encoded = inputs.get("encoder_hidden_states")
        if encoded is None:
            return {}
        mask = inputs.get("encoder_attention_mask")
        visible = ops.ones(ops.shape(encoded)[:2], "bool") if mask is None else ops.cast(mask, "bool")
        return {"memory": self.stack.memory(encoded), "memory_visible": visible}

    def check_config(self, reader: "ConfigReader") -> None:
        """Raises for a key that is set and not honoured.

        Raises:
            ValueError: attention weights or tuples are asked for; or the family leaves a key of its config class
                unread without saying why, which is a defect of the family.
        """
        if self.config.output_attentions:
            raise ValueError("output_attentions must be False: attention weights are not returned, got True")
        if not self.config.return_dict:
            raise ValueError("return_dict must be True: models return dictionaries, got False")
        own = set(type(self.config)().to_dict()) - set(transformers.PreTrainedConfig().to_dict())
        unread = own - reader.read - set(INERT) - set(self.inert)
        if unread:
            raise ValueError(f"{type(self).__name__} neither reads nor declares inert: {', '.join(sorted(unread))}")

    def get_config(self) -> dict:
        return {**keras.layers.Layer.get_config(self), "config": config_to_dict(self.config)}

    @classmethod
    def from_config(cls, config: dict) -> "Backbone":
        return cls(**{**config, "config": config_from_dict(config["config"])})


class ConfigReader:
    """A config that remembers which of its keys were read."""

    def __init__(self, config: transformers.PreTrainedConfig):
        self._config, self.read = config, set()

    def __getattr__(self, name: str):
        self.read.add(self._config.attribute_map.get(name, name))
        return getattr(self._config, name)


def config_to_dict(config: transformers.PreTrainedConfig) -> dict:
    """A config as plain values, for Keras' files."""
    return {**config.to_dict(), "model_type": config.model_type}


def config_from_dict(values: dict) -> transformers.PreTrainedConfig:
    """The inverse of `config_to_dict`."""
    values = {name: value for name, value in values.items() if name != "transformers_version"}
    return transformers.AutoConfig.for_model(**values)


def check_inputs(backbone: Backbone, inputs: Mapping, vocab_size: int | None) -> None:
    """Raises if inputs cannot be encoded; values are looked at when the graph runs, and not under XLA.

    Raises:
        ValueError: an unknown input, neither or both of `input_ids` and `inputs_embeds`, a wrong shape, too long.
        tf.errors.InvalidArgumentError: a token id outside the vocabulary.
    """
    for name in inputs:
        if name not in backbone.input_names:
            near = difflib.get_close_matches(name, backbone.input_names, n=1, cutoff=0.0)[0]
            accepted = ", ".join(backbone.input_names)
            raise ValueError(f"input {name!r} is not known, did you mean {near!r}; accepted are {accepted}")
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError(f"give input_ids or inputs_embeds, one of them; got {', '.join(inputs) or 'nothing'}")
    main = inputs.get("input_ids", inputs.get("inputs_embeds"))
    rank = 2 if "input_ids" in inputs else 3
    if main.shape.rank not in (None, rank):
        name = "input_ids" if rank == 2 else "inputs_embeds"
        raise ValueError(
            f"{name} must have {rank} axes [batch, time{', hidden' * (rank == 3)}], got shape {main.shape}"
        )
    for name in ("attention_mask", "token_type_ids", "position_ids"):
        value = inputs.get(name)
        shared = name == "position_ids" and value is not None and value.shape[:1] == [1]  # one row serves all
        if value is not None and not value.shape[shared:].is_compatible_with(main.shape[shared:2]):
            raise ValueError(f"{name} must have the shape of input_ids {main.shape[:2]}, got {value.shape}")
    limit, length = backbone.length_limit, main.shape[1]
    if limit is not None and length is not None and length > limit:
        raise ValueError(f"input_ids has {length} tokens in a row, the model has positions for {limit}")
    if "input_ids" in inputs and vocab_size is not None:
        ids = inputs["input_ids"]
        message = f"input_ids must be between 0 and {vocab_size - 1}, the size of the vocabulary less one"
        tf.debugging.assert_equal(tf.reduce_all((ids >= 0) & (ids < vocab_size)), True, message)

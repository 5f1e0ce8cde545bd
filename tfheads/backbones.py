"""Backbones: the contract between a family and everything else."""

import difflib
from collections.abc import Mapping

import keras
import tensorflow as tf
import transformers
from keras import ops

from tfheads.checks import require, same_shape, within, zeros_and_ones
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


def with_overrides(config: transformers.PreTrainedConfig, overrides: Mapping) -> transformers.PreTrainedConfig:
    """A config with values replaced; the config itself if there are none.

    Raises:
        ValueError: the config has no such value; names the nearest.
    """
    if not overrides:
        return config
    values = config.to_dict()
    if "num_labels" in overrides:  # labels of another number would contradict it
        values = {name: value for name, value in values.items() if name not in ("id2label", "label2id")}
    config, unknown = type(config).from_dict(values, return_unused_kwargs=True, **overrides)
    if unknown:
        name = sorted(unknown)[0]
        known = sorted({*config.to_dict(), *config.attribute_map, "num_labels"})
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"{type(config).__name__} has no {name!r}, did you mean {near!r}")
    return config


def check_inputs(backbone: Backbone, inputs: Mapping, vocab_size: int | None) -> list:
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
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError(f"give input_ids or inputs_embeds, one of them; got {', '.join(inputs) or 'nothing'}")
    main = inputs.get("input_ids", inputs.get("inputs_embeds"))
    rank = 2 if "input_ids" in inputs else 3
    if main.shape.rank not in (None, rank):
        name = "input_ids" if rank == 2 else "inputs_embeds"
        raise ValueError(
            f"{name} must have {rank} axes [batch, time{', hidden' * (rank == 3)}], got shape {main.shape}"
        )
    return [*_check_rows(backbone, inputs, vocab_size), *_check_shapes(backbone, inputs, main)]


def _check_shapes(backbone, inputs, main) -> list:
    limit, length = backbone.length_limit, main.shape[1]
    message = f"input_ids must have at most {limit} tokens in a row, the positions of the model"
    if limit is not None and length is not None and length > limit:
        raise ValueError(f"{message}, got {length}")
    checks = [] if limit is None or length is not None else require(tf.shape(main)[1] <= limit, message, tf.shape(main))
    for name in ("attention_mask", "token_type_ids", "position_ids"):
        value = inputs.get(name)
        if value is not None and not (name == "position_ids" and value.shape[:1] == [1]):  # one row serves all
            checks += same_shape(name, value, main)
        elif value is not None:
            checks += same_shape(name, value, main[:1])
    memory, mask = inputs.get("encoder_hidden_states"), inputs.get("encoder_attention_mask")
    if memory is not None and not getattr(backbone.config, "add_cross_attention", False):
        raise ValueError("encoder_hidden_states needs a config with add_cross_attention=True, got False")
    if mask is not None and memory is None:
        raise ValueError("encoder_attention_mask needs encoder_hidden_states, got none")
    if mask is not None:
        checks += same_shape("encoder_attention_mask", mask, memory, "encoder_hidden_states")
    return checks


def _check_rows(backbone, inputs, vocab_size) -> list:
    """Requires that tables have the rows that are asked for."""
    checks, limit = [], backbone.length_limit
    highest = {
        "input_ids": vocab_size and vocab_size - 1,
        "token_type_ids": backbone.embeddings.type_limit and backbone.embeddings.type_limit - 1,
        "position_ids": limit and limit - 1,
    }
    for name, high in highest.items():
        if inputs.get(name) is not None:
            checks += within(name, inputs[name], 0, high)
    for name in ("attention_mask", "encoder_attention_mask"):
        if inputs.get(name) is not None:
            checks += zeros_and_ones(name, inputs[name])
    return checks

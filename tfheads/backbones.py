"""Backbones: the contract between a family and everything else."""

from collections.abc import Collection, Mapping

import keras
import numpy as np
import transformers
from keras import ops

from tfheads.checkpoints.rules import Rules
from tfheads.configs import ConfigReader, config_from_dict, config_to_dict
from tfheads.heads.head import TaskHead
from tfheads.layers.context import BlockContext
from tfheads.layers.part import Part, dtype_scope, part
from tfheads.layers.shapes import sizes
from tfheads.layers.stack import Stack
from tfheads.layers.state import DecodingState
from tfheads.losses import IGNORED

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


@part
class EmbeddedStack(Part):
    """Embeddings and the stack over them.

    Args:
        embeddings: a part `(inputs, positions, training) -> [batch, time, hidden]`.
        stack: a `Stack`.

    Attributes:
        input_names: the inputs that it understands.
        first_position: the position that a row's first token has where the caller gives none.
        encodes_source: whether generation starts from a source that is read once, and a prompt of its own.
    """

    input_names: tuple[str, ...] = ("input_ids", "attention_mask", "position_ids", "inputs_embeds")
    first_position: int = 0
    encodes_source: bool = False

    def __init__(self, embeddings: keras.layers.Layer, stack: Stack, **kwargs):
        super().__init__(**kwargs)
        self.embeddings, self.stack = embeddings, stack

    @property
    def causal(self) -> bool:
        """Whether tokens see only what came before, so that the backbone can generate."""
        return self.stack.causal

    @property
    def length_limit(self) -> int | None:
        """The longest input, in tokens; None for no limit."""
        limit = self.embeddings.length_limit
        return None if limit is None else limit - self.first_position

    @property
    def generation_limit(self) -> int | None:
        """The longest row that can be generated, the prompt included; None for no limit."""
        return self.length_limit

    @property
    def token_table(self):
        """The token embeddings `[vocabulary, hidden]`, for heads that are tied to them."""
        return self.embeddings.token.embeddings

    @property
    def input_vocab_size(self) -> int:
        """How many ids `input_ids` may have."""
        return self.token_table.shape[0]

    def position_ids(self, inputs: Mapping, length: int):
        """Positions `[1 or batch, length]` when the caller gives none: counted from the left, padding included."""
        return self.first_position + ops.arange(length)[None, :]

    def call(self, inputs: Mapping, training=None) -> dict:
        """Encodes `inputs`.

        Args:
            inputs: tensors by name; `input_ids` `[batch, time]` or `inputs_embeds` `[batch, time, hidden]`, and
                optionally `attention_mask` `[batch, time]` (1 for real tokens), `position_ids`, `token_type_ids`,
                `encoder_hidden_states`, `encoder_attention_mask`.

        Returns:
            `last_hidden_state` `[batch, time, hidden]` and `hidden_states`, the inputs of each block and the result.
        """
        embedded, mask, positions = self._embed(inputs, training)
        context = BlockContext(mask=mask, **self._encoder(inputs))
        output = self.stack(embedded, positions=positions, context=context, training=training)
        return {"last_hidden_state": output.hidden, "hidden_states": output.hidden_states}

    def decoding_state(self, inputs: Mapping, slots: int) -> DecodingState:
        """What generation starts from: an empty cache of `slots` tokens, and the encoder's output if there is one."""
        batch = sizes(inputs.get("input_ids", inputs.get("encoder_hidden_states")))[0]
        return self.stack.decoding_state(batch, slots, **self._encoder(inputs))

    def extend(self, inputs: Mapping, state: DecodingState, slot) -> tuple:
        """Encodes the next tokens of each row after those in `state`.

        Args:
            inputs: `input_ids` `[batch, time]`, `attention_mask` and `position_ids` of the new tokens; these are
                counted from 0 in every family.
            state: what came before.
            slot: scalar, the slot of the first new token.

        Returns:
            The hidden values `[batch, time, hidden]` and the new state.
        """
        inputs = {**inputs, "position_ids": inputs["position_ids"] + self.first_position}
        embedded, mask, positions = self._embed(inputs, training=False)
        context = BlockContext(mask=mask, slot=slot)
        output = self.stack(embedded, positions=positions, context=context, state=state, training=False)
        return output.hidden, output.state

    def reordered(self, state: DecodingState, rows, slot, size) -> DecodingState:
        """The state in which each row goes on from what `rows` `[batch]` have; see `Stack.reordered`."""
        return self.stack.reordered(state, rows, slot, size)

    def _embed(self, inputs, training):
        given = inputs["inputs_embeds"] if inputs.get("input_ids") is None else inputs["input_ids"]
        positions, mask = inputs.get("position_ids"), inputs.get("attention_mask")
        if positions is None:
            positions = self.position_ids(inputs, sizes(given)[1])
        mask = None if mask is None else ops.cast(mask, "bool")
        return self.embeddings(inputs, positions=positions, training=training), mask, positions

    def _encoder(self, inputs) -> dict:
        """What the stack's cross-attentions see, by name; nothing without an encoder's output."""
        encoded = inputs.get("encoder_hidden_states")
        if encoded is None:
            return {}
        mask = inputs.get("encoder_attention_mask")
        mask = ops.ones(sizes(encoded)[:2], "bool") if mask is None else ops.cast(mask, "bool")
        return {"encoder_hidden_states": encoded, "encoder_mask": mask}


class Architecture:
    """What families say of themselves, mixed into the two kinds of backbones.

    Attributes:
        class_prefix: how the family's class names begin, such as "GPT2".
        class_names: public class names of tasks for which prefix + suffix is not the name.
        checkpoint_prefix: what backbone tensors are called below in a checkpoint with a head; "" for nothing.
        checkpoint_prefixes: the same for tasks where it is another.
        heads: the head for each task, with what checkpoints call its weights.
        model_mixins: classes that the family's models inherit from besides the task's.
        inert: config keys that no layer needs to read, with the reason.
        reference: the paper and transformers' class.
    """

    class_prefix: str
    class_names: dict[str, tuple[str, ...]] = {}
    checkpoint_prefix: str
    checkpoint_prefixes: dict[str, str] = {}
    heads: dict[str, TaskHead]
    model_mixins: tuple[type, ...] = ()
    inert: dict[str, str] = {}
    reference: str = ""

    @classmethod
    def checkpoint_base(cls, task: str) -> str:
        """What the names of the backbone's tensors begin with in a checkpoint that is written for `task`."""
        prefix = cls.checkpoint_prefixes.get(task, cls.checkpoint_prefix)
        return "" if task == "base" or not prefix else f"{prefix}."

    @classmethod
    def base_in(cls, names: Collection[str]) -> str:
        """What the names of the backbone's tensors begin with in a checkpoint with these names, of any task."""
        prefixes = (cls.checkpoint_prefix, *cls.checkpoint_prefixes.values())
        bases = [f"{prefix}." for prefix in prefixes if prefix]
        return next((base for base in bases if any(name.startswith(base) for name in names)), "")

    @classmethod
    def head_rules(cls, task: str, config) -> tuple[Rules, ...]:
        """What checkpoints call the weights of the head for `task`, in sections; see `TaskHead`."""
        return cls.heads[task].sections

    def initial_scale(self, path: str) -> float:
        """By what the standard deviation of a new weight is multiplied; `path` is its layer's attribute path."""
        return 1.0

    def initial_deviation(self, path: str) -> float:
        """The standard deviation of a new weight; `path` is its layer's attribute path."""
        return getattr(self.config, "initializer_range", 0.02) * self.initial_scale(path)

    def initial_value(self, path: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """What a new weight starts from; None for random numbers. `path` is its layer's attribute path."""
        return None

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


class Backbone(Architecture, EmbeddedStack):
    """One stack over embedded inputs; a family says of which parts.

    A family sets the attributes of `Architecture` and writes `make_embeddings` and `make_stack`. Heads, generation,
    pipelines, serving and the trainer use only what stands here.
    """

    def __init__(self, config: transformers.PreTrainedConfig, **kwargs):
        reader = ConfigReader(config)
        with dtype_scope(keras.dtype_policies.get(kwargs.get("dtype"))):
            embeddings, stack = self.make_embeddings(reader), self.make_stack(reader)
        super().__init__(embeddings, stack, **kwargs)
        self.config = config
        self.check_config(reader)

    @staticmethod
    def make_embeddings(config) -> keras.layers.Layer:
        """The family's embeddings."""
        raise NotImplementedError

    @staticmethod
    def make_stack(config) -> Stack:
        """The family's stack."""
        raise NotImplementedError


class EncoderDecoder(Architecture, Part):
    """An encoder that reads a source once, and a decoder that attends to what it made of it.

    A family sets the attributes of `Architecture` and writes `make_encoder` and `make_decoder`. Everything else uses
    what `Backbone` has too: `input_ids` and the like are the source's, the same names with `decoder_` before them are
    the target's; `decoding_state` reads the source, `extend` the target.

    Attributes:
        encoder, decoder: `EmbeddedStack`s, or whole backbones.
        bridge: a layer from the encoder's width to the one that the decoder attends to, or None.
    """

    encodes_source = True

    def __init__(self, config: transformers.PreTrainedConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        reader = ConfigReader(config)
        with dtype_scope(self.dtype_policy):
            self.encoder = self.make_encoder(reader)
            self.decoder = self.make_decoder(reader, self.encoder)
            self.bridge = self.make_bridge(reader)
        self.check_config(reader)

    @staticmethod
    def make_encoder(config) -> EmbeddedStack:
        """The family's encoder."""
        raise NotImplementedError

    @staticmethod
    def make_decoder(config, encoder: EmbeddedStack) -> EmbeddedStack:
        """The family's decoder, which may share the encoder's token table."""
        raise NotImplementedError

    @staticmethod
    def make_bridge(config) -> keras.layers.Layer | None:
        """The family's layer between the two; none unless it says otherwise."""
        return None

    @property
    def input_names(self) -> tuple[str, ...]:
        """The source's inputs, then the target's."""
        source, target = (
            tuple(name for name in one.input_names if not name.startswith("encoder_"))
            for one in (self.encoder, self.decoder)
        )
        return (*source, *(f"decoder_{name}" for name in target))

    @property
    def causal(self) -> bool:
        """Whether the decoder can generate."""
        return self.decoder.causal

    @property
    def length_limit(self) -> int | None:
        """The longest source, in tokens; None for no limit."""
        return self.encoder.length_limit

    @property
    def generation_limit(self) -> int | None:
        """The longest target, in tokens; None for no limit."""
        return self.decoder.length_limit

    @property
    def token_table(self):
        """The decoder's token embeddings `[vocabulary, hidden]`, for heads that are tied to them."""
        return self.decoder.token_table

    @property
    def input_vocab_size(self) -> int:
        """How many ids `input_ids`, the source, may have."""
        return self.encoder.input_vocab_size

    def source(self, inputs: Mapping) -> dict:
        """The encoder's inputs."""
        return {name: value for name, value in inputs.items() if not name.startswith("decoder_")}

    def target(self, inputs: Mapping) -> dict:
        """The decoder's inputs, without `decoder_` before their names.

        Raises:
            ValueError: there are none, and the family does not say what stands for them.
        """
        given = {name: value for name, value in inputs.items() if name.startswith("decoder_")}
        given = {name.removeprefix("decoder_"): value for name, value in given.items()}
        if given.get("input_ids") is None and given.get("inputs_embeds") is None:
            given["input_ids"] = self.default_target(self.source(inputs))
        return given

    def default_target(self, source: Mapping):
        """The decoder's `input_ids` when the caller gives none.

        Raises:
            ValueError: the family has none.
        """
        raise ValueError(f"give decoder_input_ids, or labels of tokens; got {', '.join(source) or 'nothing'}")

    def target_of_labels(self, labels) -> dict:
        """The decoder inputs `decoder_...` that predict `labels` `[batch, time]`."""
        return {"decoder_input_ids": self.moved_right(labels)}

    def moved_right(self, ids):
        """`ids` `[batch, time]` behind the token that targets begin with, -100 replaced by padding.

        Raises:
            ValueError: the config has no `decoder_start_token_id` or no `pad_token_id`.
        """
        for name in ("decoder_start_token_id", "pad_token_id"):
            if getattr(self.config, name, None) is None:
                raise ValueError(f"{name} must be set in model.config, targets are made with it, got None")
        ids = ops.cast(ids, "int32")
        first = ops.full_like(ids[:, :1], self.config.decoder_start_token_id)
        moved = ops.concatenate([first, ids[:, :-1]], axis=1)
        return ops.where(moved == IGNORED, self.config.pad_token_id, moved)

    def call(self, inputs: Mapping, training=None) -> dict:
        """Encodes the source, then the target.

        Args:
            inputs: tensors by name; the source's as for `Backbone`, and the target's: `decoder_input_ids`
                `[batch, target]` or `decoder_inputs_embeds`, and optionally `decoder_attention_mask` and others.

        Returns:
            The target's `last_hidden_state` `[batch, target, hidden]`, the source's `encoder_last_hidden_state`, and
            of both the inputs of each block and the result: `decoder_hidden_states`, `encoder_hidden_states`.
        """
        source = self.source(inputs)
        encoded = self.encoder(source, training=training)
        decoded = self.decoder({**self.target(inputs), **self._encoded(encoded, source)}, training=training)
        return {
            "last_hidden_state": decoded["last_hidden_state"],
            "decoder_hidden_states": decoded["hidden_states"],
            "encoder_last_hidden_state": encoded["last_hidden_state"],
            "encoder_hidden_states": encoded["hidden_states"],
        }

    def decoding_state(self, inputs: Mapping, slots: int) -> DecodingState:
        """What generation starts from: the source's keys and values, and an empty cache of `slots` target tokens."""
        source = self.source(inputs)
        return self.decoder.decoding_state(self._encoded(self.encoder(source, training=False), source), slots)

    def extend(self, inputs: Mapping, state: DecodingState, slot) -> tuple:
        """Encodes the next target tokens of each row after those in `state`; see `Backbone.extend`."""
        return self.decoder.extend(inputs, state, slot)

    def reordered(self, state: DecodingState, rows, slot, size) -> DecodingState:
        """The state in which each row goes on from what `rows` `[batch]` have; see `Stack.reordered`."""
        return self.decoder.reordered(state, rows, slot, size)

    def _encoded(self, encoded, source) -> dict:
        hidden = encoded["last_hidden_state"]
        hidden = hidden if self.bridge is None else self.bridge(hidden)
        return {"encoder_hidden_states": hidden, "encoder_attention_mask": source.get("attention_mask")}

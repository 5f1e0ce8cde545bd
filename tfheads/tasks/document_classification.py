"""Classes of texts that are longer than a model's positions."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from tfheads.checkpoints.attribute_walk import checkpoint_variables, layers_by_path
from tfheads.checks import require, same_shape, within, zeros_and_ones
from tfheads.input_checks import check_inputs
from tfheads.models import TaskModel
from tfheads.registry import task
from tfheads.tasks import windows
from tfheads.tasks.packing import lengths

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WINDOW_LENGTH = 512


@task("document-classification")
class ForDocumentClassification(TaskModel):
    """The class (or number, or yes or no for each class) of texts of any length, read in overlapping windows.

    Each window is encoded as a text of its own, its positions counted from 0; the windows' vectors are pooled into one,
    which is classified. A batch in which every document fits into a window gives what the sequence classifier gives.

    These keys of the config decide, each also an argument of `from_config` and `from_pretrained`:

    - `window_pooling` ("mean"): "mean", "max", or "attention", which weighs windows by a learned score;
    - `window_length` (all of the model's positions, or 512 where they have no end): tokens in a window;
    - `window_stride` (half of a window): tokens from the start of a window to the start of the next;
    - `window_budget` (8): how many windows go through the model at a time, in training too, which bounds the memory:
      the backward pass encodes them again;
    - `max_windows` (None, no limit): documents of more windows are an error.
    """

    auto_name, suffix = "AutoModelForDocumentClassification", "ForDocumentClassification"
    config_keys = ("window_pooling", "window_length", "window_stride", "window_budget", "max_windows")

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        limit = self.backbone.length_limit
        self.window_length = self._setting("window_length", limit or WINDOW_LENGTH, limit)
        self.window_stride = self._setting("window_stride", -(-self.window_length // 2), self.window_length)
        self.window_budget = self._setting("window_budget", 8, None)
        self.max_windows = self._setting("max_windows", 2**31 - 1, None)

    def _setting(self, name: str, default: int | None, limit: int | None) -> int:
        value = getattr(self.config, name, None)
        value = default if value is None else value
        if not isinstance(value, int) or value < 1 or (limit is not None and value > limit):
            accepted = "at least 1" if limit is None else f"between 1 and {limit}"
            raise ValueError(f"{name} must be a whole number {accepted}, got {value!r}")
        return value

    @property
    def input_limit(self) -> None:
        return None

    @property
    def accepted_inputs(self) -> tuple[str, ...]:
        return tuple(name for name in TOKEN_INPUTS if name in self.backbone.input_names)

    def __call__(self, inputs=None, *, training: bool = False, **named):
        if named.pop("output_hidden_states", None) or self.config.output_hidden_states:
            raise ValueError("output_hidden_states must be False for documents, whose windows pass by, got True")
        return super().__call__(inputs, training=training, **named)

    def forward(self, inputs: Mapping, training=None):
        """Logits of documents; one that is cut has no hidden states."""
        ids = inputs["input_ids"]
        if ids.shape[1] is not None and ids.shape[1] <= self.window_length:
            return super().forward(inputs, training)
        tokens = {name: value for name, value in inputs.items() if name != "attention_mask"}
        fill = self.config.pad_token_id or 0
        cut, real = windows.cut(tokens, self._real(inputs), self.window_length, self.window_stride, fill)
        vectors = tf.reshape(self._encoder(training)(cut), [*tf.unstack(tf.shape(real)), self.head.width])
        return self.head.of_windows(vectors, real, training=training), {}

    def _encoder(self, training) -> windows.Bounded:
        def encode(inputs):
            encoded = self.backbone(inputs, training=training)
            return self.head.pooler(encoded, inputs=inputs, training=training)

        parts = (self.backbone, self.head.pooler)
        drops = [
            layer for part in parts for _, layer in layers_by_path(part) if isinstance(layer, keras.layers.Dropout)
        ]
        return windows.Bounded(
            encode,
            [variable for part in parts for variable in checkpoint_variables(part)],
            [variable for layer in drops for variable in layer.variables] if training else [],
            self.head.width,
            self.compute_dtype,
            self.window_budget,
        )

    def _real(self, inputs) -> tf.Tensor:
        """Which tokens are no padding: those that the mask leaves, or that are not `pad_token_id`."""
        if inputs.get("attention_mask") is not None:
            return tf.cast(inputs["attention_mask"], tf.bool)
        pad = self.config.pad_token_id
        return inputs["input_ids"] != (-1 if pad is None else pad)

    def check_inputs(self, inputs: Mapping) -> list:
        """Requires documents that can be read; see `tfheads.input_checks.check_inputs`."""
        unknown = [name for name in inputs if name not in self.accepted_inputs]
        if unknown:
            accepted = ", ".join(self.accepted_inputs)
            raise ValueError(f"input {unknown[0]!r} is not known to {type(self).__name__}, accepted are {accepted}")
        ids = inputs.get("input_ids")
        if ids is None or ids.shape.rank != 2 or ids.shape[1] == 0:
            given = "none" if ids is None else f"shape {ids.shape}"
            raise ValueError(f"input_ids must be given as [batch, time] with at least one token, got {given}")
        if ids.shape[1] is not None and ids.shape[1] <= self.window_length:
            return check_inputs(self.backbone, inputs, self.vocab_size)
        types = self.backbone.embeddings.type_limit
        checks = within("input_ids", ids, 0, self.vocab_size - 1)
        for name in self.accepted_inputs[1:]:
            checks += same_shape(name, inputs[name], ids) if inputs.get(name) is not None else []
        if inputs.get("attention_mask") is not None:
            checks += zeros_and_ones("attention_mask", inputs["attention_mask"])
        if inputs.get("token_type_ids") is not None:
            checks += within("token_type_ids", inputs["token_type_ids"], 0, types and types - 1)
        most = windows.count(tf.reduce_max(lengths(self._real(inputs))), self.window_length, self.window_stride)
        message = f"documents must have at most max_windows={self.max_windows} windows of {self.window_length} tokens"
        return checks + require(most <= self.max_windows, message, most)

"""A decoder that writes a target behind a source."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfheads.checks import require
from tfheads.generation.generate import Generates
from tfheads.input_checks import check_inputs
from tfheads.inputs import as_array
from tfheads.layers.column_blocks import table_or_blocks
from tfheads.layers.shapes import sizes
from tfheads.losses import IGNORED
from tfheads.models import TaskModel
from tfheads.outputs import ModelOutput
from tfheads.registry import task
from tfheads.tasks.packing import lengths, packed


@task("conditional-generation")
class ForConditionalGeneration(Generates, TaskModel):
    """Language model without an encoder that writes a target from a source: both in one sequence, a separator between.

    Inputs are the source, `input_ids` `[batch, time]` and its `attention_mask`, padding on either side. With `labels`
    `[batch, target]` (-100 for padding) the sequence is the source's real tokens, the separator, the target, and the
    end of text if the target does not end with it; the loss is on the target and its end alone, and `logits`
    `[batch, target + 1, vocabulary]` stand one for one for the target's tokens and the end. Without labels they are
    `[batch, 1, vocabulary]`, of the target's first token.

    The config's `separator_token_id`, also an argument of `from_config` and `from_pretrained`, says what stands
    between; without one it is `eos_token_id`.
    """

    auto_name, suffix = "AutoModelForConditionalGeneration", "ForConditionalGeneration"
    config_keys = ("separator_token_id",)
    reports_perplexity = True

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        end, separator = config.eos_token_id, getattr(config, "separator_token_id", None)
        self.end_token_id = end[0] if isinstance(end, (list, tuple)) else end
        self.separator_token_id = self.end_token_id if separator is None else separator
        for name, value in {"eos_token_id": self.end_token_id, "separator_token_id": self.separator_token_id}.items():
            if not isinstance(value, int) or not 0 <= value < self.vocab_size:
                raise ValueError(f"{name} must be a token id between 0 and {self.vocab_size - 1}, got {value!r}")

    @property
    def accepted_inputs(self) -> tuple[str, ...]:
        return "input_ids", "attention_mask"

    def completed(self, inputs: Mapping, labels) -> Mapping:
        """Adds `target_ids`: the labels without gaps, and the end of text."""
        labels = labels.get("labels") if isinstance(labels, Mapping) else None
        if labels is None or "target_ids" in inputs:
            return inputs
        if labels.shape.rank != 2 or labels.shape[1] == 0 or not labels.dtype.is_integer:
            given = f"{labels.dtype.name} of shape {labels.shape}"
            raise ValueError(f"labels must be whole numbers [batch, target], the tokens of the target, got {given}")
        return {**inputs, "target_ids": self._ended(labels)}

    def _ended(self, labels) -> tf.Tensor:
        """Labels `[batch, target + 1]` that end with the end of text; a row of -100 stays as it is."""
        real = labels != IGNORED
        used = lengths(real)[:, None]
        wide = tf.pad(packed(labels, real, IGNORED), [[0, 0], [0, 1]], constant_values=IGNORED)
        places = tf.range(tf.shape(wide)[1])[None]
        ends = tf.reduce_any((places == used - 1) & (wide == self.end_token_id), axis=1, keepdims=True)
        return tf.where((places == used) & (used > 0) & ~ends, self.end_token_id, wide)

    def forward(self, inputs: Mapping, training=None):
        """Logits of the places from the separator on, and the hidden states of the joined sequence."""
        joined, first, targets = self._joined(inputs)
        encoded = self.backbone(joined, training=training)
        places = first[:, None] + tf.range(targets)
        hidden = encoded["last_hidden_state"]
        hidden = tf.gather(hidden, tf.minimum(places, tf.shape(hidden)[1] - 1), axis=1, batch_dims=1)
        table = table_or_blocks(self.backbone.token_table)
        output = self.head({"last_hidden_state": hidden}, token_table=table, inputs=inputs, training=training)
        return output, {"hidden_states": encoded["hidden_states"]}

    def _joined(self, inputs) -> tuple[dict, tf.Tensor, "int | tf.Tensor"]:
        """Source, separator and target as inputs of the backbone; where the separator stands; how many logits."""
        ids, real, target = inputs["input_ids"], self._real(inputs), inputs.get("target_ids")
        first, fill = lengths(real), self.config.pad_token_id or 0
        source = packed(ids, real, fill)
        target = tf.fill([tf.shape(ids)[0], 1], IGNORED) if target is None else target
        logits = sizes(target)[1]
        width = sizes(ids)[1] + logits
        if self.backbone.length_limit is not None:  # more is an error, unless it is padding
            bound = min if isinstance(width, int) else tf.minimum
            width = bound(width, self.backbone.length_limit)
        places = tf.range(width)[None]
        behind = places - first[:, None] - 1  # of the target
        joined = tf.where(places == first[:, None], self.separator_token_id, _at(target, behind))
        joined = tf.where(behind < -1, _at(source, places + tf.zeros_like(behind)), joined)
        mask = behind < tf.maximum(lengths(target != IGNORED) - 1, 0)[:, None]  # nothing follows the last token
        joined = {"input_ids": tf.where(mask, joined, fill), "attention_mask": tf.cast(mask, tf.int32)}
        return joined, first, logits

    @staticmethod
    def _real(inputs) -> tf.Tensor:
        mask = inputs.get("attention_mask")
        return tf.ones_like(inputs["input_ids"], tf.bool) if mask is None else tf.cast(mask, tf.bool)

    def check_inputs(self, inputs: Mapping) -> list:
        """Requires a source that can be read, and room for the target; see `tfheads.input_checks.check_inputs`."""
        target = inputs.get("target_ids")
        inputs = {name: value for name, value in inputs.items() if name != "target_ids"}
        unknown = [name for name in inputs if name not in self.accepted_inputs]
        if unknown:
            accepted = ", ".join(self.accepted_inputs)
            raise ValueError(f"input {unknown[0]!r} is not known to {type(self).__name__}, accepted are {accepted}")
        ids = inputs.get("input_ids")
        if ids is not None and ids.shape.rank == 2 and ids.shape[1] == 0:
            raise ValueError(f"input_ids must have at least one token in a row, got shape {ids.shape}")
        checks = check_inputs(self.backbone, inputs, self.vocab_size)
        limit = self.backbone.length_limit
        if limit is None:
            return checks
        used = lengths(self._real(inputs)) + 1
        if target is not None and target.shape[:1].is_compatible_with(ids.shape[:1]):
            used += tf.maximum(lengths(target != IGNORED) - 1, 0)
        message = f"source, separator and target must have at most {limit} tokens together, the positions of the model"
        return checks + require(tf.reduce_all(used <= limit), message, tf.reduce_max(used))

    def generate(self, inputs=None, attention_mask=None, **options) -> "np.ndarray | ModelOutput":
        """Writes a target for each source.

        Args:
            inputs: the sources, `input_ids` `[batch, time]`, or a mapping with `input_ids` and `attention_mask`.
            attention_mask: `[batch, time]`, 1 for real tokens; padding may stand on either side.
            options: see `tfheads.generation.generate.Generates.generate`; `max_length` and `min_length` count the
                source and the separator too.

        Returns:
            The tokens of the targets alone, int32 `[batch * num_return_sequences, target]`, or a `ModelOutput` with
            them as `sequences`.

        Raises:
            ValueError: options or inputs that cannot be, in one sentence.
        """
        prompts, mask = self._prompts(inputs, attention_mask, options)
        made = super().generate(prompts, mask, **options)
        if isinstance(made, Mapping):
            return ModelOutput({**made, "sequences": made["sequences"][:, prompts.shape[1] :]})
        return made[:, prompts.shape[1] :]

    def new_tokens(self, inputs=None, attention_mask=None, **options) -> list[np.ndarray]:
        """As `generate`, but without padding: the tokens of each target."""
        return super().new_tokens(*self._prompts(inputs, attention_mask, options), **options)

    def _prompts(self, inputs, attention_mask, options: dict) -> tuple[np.ndarray, np.ndarray]:
        """The sources with the separator behind them, and the mask; takes them out of the options."""
        given = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
        ids = options.pop("input_ids", None) if given.get("input_ids") is None else given["input_ids"]
        mask = given.get("attention_mask", attention_mask)
        if ids is None:
            raise ValueError("input_ids must be given, the tokens of the sources, got none")
        ids = as_array("input_ids", ids)
        mask = np.ones(ids.shape, "int32") if mask is None else as_array("attention_mask", mask)
        if ids.ndim != 2 or mask.shape != ids.shape or not mask.any(axis=1).all():
            shapes = f"input_ids {ids.shape} and attention_mask {mask.shape}"
            raise ValueError(f"sources must be [batch, time] with a real token in every row, got {shapes}")
        separators = np.full((len(ids), 1), self.separator_token_id)
        return np.concatenate([ids, separators], 1), np.concatenate([mask, np.ones_like(separators)], 1)


def _at(values: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Each row's values at `places` `[batch, wanted]`; the first or the last one for places outside of it."""
    return tf.gather(values, tf.clip_by_value(places, 0, tf.shape(values)[1] - 1), batch_dims=1)

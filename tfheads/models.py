"""Task models: a backbone and a head, one class for each task."""

import warnings
from collections.abc import Mapping

import keras
import tensorflow as tf
import transformers

from tfheads import losses
from tfheads.backbones import check_inputs, config_from_dict, config_to_dict, with_overrides
from tfheads.checkpoints.initialisation import initialise
from tfheads.checkpoints.pretrained import Pretrained
from tfheads.checks import after
from tfheads.generation.generate import Generates
from tfheads.inputs import as_tensor
from tfheads.layers.part import dtype_scope, weights_are_awaited, weights_follow
from tfheads.outputs import ModelOutput
from tfheads.registry import named_class, task
from tfheads.serving import Served
from tfheads.trainer import TaskTrainer, output_of


class TaskModel(Pretrained, Served, TaskTrainer, keras.Model):
    """A backbone with a head for one task.

    Named classes such as `GPT2LMHeadModel` are made for one family; the task's own class (`AutoModelForCausalLM`) is
    the door to all of them.

    Args:
        config: a transformers config of a supported family.
        dtype: a Keras dtype policy such as "float32", "bfloat16" or "mixed_bfloat16"; None for the global one.
        seed: for the new weights; None draws one from Keras' global seed.

    Raises:
        ValueError: the config is of another family, or holds what the family does not support.
    """

    task: str
    auto_name: str
    suffix: str
    family: type | None = None
    reports_perplexity = False

    def __init__(self, config: transformers.PreTrainedConfig, dtype=None, seed: int | None = None, **kwargs):
        self._check_family(config)
        with dtype_scope(dtype), weights_follow():
            super().__init__(**kwargs)
            self.config = config
            self.backbone = self.family(config, name="backbone")
            make_head = self.family.heads[self.task]
            self.head = None if make_head is None else make_head(config)
        self.generation_config = transformers.GenerationConfig.from_model_config(config)
        self.built = True
        if not weights_are_awaited():
            initialise(self, seed=seed)

    @classmethod
    def _check_family(cls, config) -> None:
        if cls.family is None:
            raise TypeError(f"{cls.auto_name} is made by from_config or from_pretrained, not by calling it")
        check_is_config(config)
        if config.model_type != cls.family.model_type:
            raise ValueError(
                f"config must be of model_type {cls.family.model_type!r} for {cls.__name__}, got {config.model_type!r}"
            )

    @classmethod
    def bind(cls, family: type, name: str) -> type:
        """Makes the named class of this task for a family."""
        documentation = f"{cls.__doc__}\n\nFamily: {family.__doc__}"
        attributes = {"family": family, "__module__": family.__module__, "__doc__": documentation}
        return keras.saving.register_keras_serializable("tfheads")(type(name, (cls,), attributes))

    @property
    def criteria(self) -> tuple:
        """The losses that the head is trained on; empty for a bare model."""
        return () if self.head is None else tuple(self.head.criteria)

    @property
    def vocab_size(self) -> int:
        """How many token ids there are."""
        return self.backbone.token_table.shape[0]

    def __call__(self, inputs=None, *, training: bool = False, **named) -> ModelOutput:
        """Runs the model; takes a dictionary of inputs, token ids alone, or inputs by name.

        Args:
            inputs: `input_ids` `[batch, time]`, or a mapping of named inputs (also a tokenizer's `BatchEncoding`).
            training: whether dropout is active.
            named: inputs by name, `labels` among them, and `output_hidden_states`.

        Returns:
            `logits` or what the head gives, `loss` if there are labels, `hidden_states` if wanted.

        Raises:
            ValueError: inputs that the model cannot take, in one sentence.
        """
        hidden_states = named.pop("output_hidden_states", None)
        if inputs is None:
            inputs = {}
        elif not isinstance(inputs, Mapping):
            inputs = {"input_ids": inputs}
        inputs = {name: as_tensor(name, value) for name, value in {**inputs, **named}.items() if value is not None}
        if hidden_states is None:
            hidden_states = bool(self.config.output_hidden_states)
        if not any(isinstance(value, keras.KerasTensor) for value in inputs.values()):
            inputs = after(self._checks(inputs), inputs)
        return super().__call__(inputs, training=training, output_hidden_states=hidden_states)

    def call(self, inputs: Mapping, training=None, output_hidden_states: bool = False) -> ModelOutput:
        """The forward pass on tensors; see `__call__`."""
        inputs, labels = self.without_labels(inputs)
        encoded = self.backbone(inputs, training=training)
        if self.head is None:
            output = {"last_hidden_state": encoded["last_hidden_state"]}
        else:
            table = tf.convert_to_tensor(self.backbone.token_table)
            output = self.head(encoded, token_table=table, inputs=inputs, training=training)
        loss = self._loss(labels, output) if labels else None
        states = encoded["hidden_states"] if output_hidden_states else None
        return output_of({"loss": loss, **output, "hidden_states": states})

    def without_labels(self, inputs: Mapping) -> tuple[dict, dict]:
        """The inputs of the backbone, and the labels that came with them."""
        names = {name for criterion in self.criteria for name in criterion.label_names}
        labels = {name: value for name, value in inputs.items() if name in names}
        return {name: value for name, value in inputs.items() if name not in names}, labels

    def _checks(self, inputs) -> list:
        inputs, labels = self.without_labels(inputs)
        checks = check_inputs(self.backbone, inputs, self.vocab_size)
        for criterion in self.criteria if labels else ():
            checks += criterion.check(inputs, labels)
        return checks

    def _loss(self, labels, output):
        totals = tf.stack([criterion.total(output, labels) for criterion in self.criteria])
        return losses.mean(totals, tf.stack([criterion.count(labels) for criterion in self.criteria]))

    def prepare_tf_dataset(
        self, dataset, batch_size: int = 8, shuffle: bool = True, tokenizer=None, **options
    ) -> tf.data.Dataset:
        """Batches of a tokenised `datasets.Dataset` for `fit`, with the columns that the model takes.

        Args:
            dataset: rows of `input_ids` and other inputs, and `labels` if there are any.
            batch_size, shuffle, tokenizer, options: see `tfheads.data.batching.prepare_tf_dataset`.
        """
        from tfheads.data.batching import prepare_tf_dataset  # datasets takes a second to import

        columns = self.backbone.input_names
        return prepare_tf_dataset(dataset, batch_size, shuffle, tokenizer, columns=columns, **options)

    def get_config(self) -> dict:
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"name": self.name, "config": config_to_dict(self.config), "dtype": policy}

    @classmethod
    def from_config(cls, config, dtype=None, seed: int | None = None, **overrides) -> "TaskModel":
        """A model with new weights for a transformers config (or Keras' own serialised form).

        Args:
            config: a `transformers` config; the class of its family for this task is chosen.
            dtype: a Keras dtype policy; None for the global one.
            seed: for the new weights; None draws one from Keras' global seed.
            overrides: config values to replace.

        Raises:
            ValueError: the config's family is not supported or has no such task, or it has no value of an override.
        """
        if isinstance(config, Mapping):
            policy = keras.saving.deserialize_keras_object(config["dtype"])
            return cls(config_from_dict(config["config"]), dtype=policy, name=config["name"])
        check_is_config(config)
        config = with_overrides(config, overrides)
        return cls._class_for(config)(config, dtype=dtype, seed=seed)

    @classmethod
    def _class_for(cls, config) -> type:
        if cls.family is None:
            return named_class(config, cls.task)
        cls._check_family(config)
        return cls


def check_is_config(config) -> None:
    """Raises unless `config` is a transformers config.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(config, transformers.PreTrainedConfig):
        raise TypeError(f"config must be a transformers config such as GPT2Config(), got {type(config).__name__}")


@task("base")
class BareModel(TaskModel):
    """The hidden values of each token, without a head for a task."""

    auto_name, suffix = "AutoModel", "Model"


@task("causal-lm")
class ForCausalLM(Generates, TaskModel):
    """Language model that predicts the next token."""

    auto_name, suffix = "AutoModelForCausalLM", "ForCausalLM"
    reports_perplexity = True

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        if not self.backbone.causal:
            warnings.warn(
                f"{type(self).__name__} sees the tokens it is to predict: set is_decoder=True in its config",
                stacklevel=2,
            )


@task("masked-lm")
class ForMaskedLM(TaskModel):
    """Language model that fills masked tokens."""

    auto_name, suffix = "AutoModelForMaskedLM", "ForMaskedLM"
    reports_perplexity = True

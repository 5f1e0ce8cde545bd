"""Task models: a backbone and a head, one class for each task."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict

import keras
import tensorflow as tf
import transformers

from tfheads import losses
from tfheads.adapters.lora import Adapted, LoraSettings
from tfheads.base_model import BaseModel, base_model
from tfheads.checkpoints.attribute_walk import layers_by_path
from tfheads.checkpoints.initialisation import initialise
from tfheads.checkpoints.pretrained import Pretrained
from tfheads.checks import after, within
from tfheads.configs import config_from_dict, config_to_dict, with_overrides
from tfheads.distribute.agreement import require_agreement
from tfheads.generation.generate import Generates
from tfheads.input_checks import check_inputs
from tfheads.inputs import as_tensor
from tfheads.keras_methods import RefusesKerasMethods, refuse_remat_scope
from tfheads.layers.checkpoint_children import HasCheckpointChildren
from tfheads.layers.column_blocks import table_or_blocks
from tfheads.layers.part import dtype_scope, weights_are_awaited, weights_follow
from tfheads.layers.stack import Stack
from tfheads.outputs import ModelOutput
from tfheads.registry import named_class, task
from tfheads.serving import Served
from tfheads.trainer import TaskTrainer, output_of


class TaskModel(Pretrained, Served, Adapted, TaskTrainer, RefusesKerasMethods, HasCheckpointChildren, keras.Model):
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
    config_keys: tuple[str, ...] = ()
    reports_perplexity = False

    def __init__(self, config: transformers.PreTrainedConfig, dtype=None, seed: int | None = None, **kwargs):
        self._check_family(config)
        refuse_remat_scope()
        require_agreement("config", config.to_dict())
        with dtype_scope(dtype), weights_follow():
            super().__init__(**kwargs)
            self.config = config
            self.backbone = self.family(config, name="backbone")
            make_head = self.family.heads[self.task].make
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
        return keras.saving.register_keras_serializable("tfheads")(type(name, (*family.model_mixins, cls), attributes))

    @property
    def base_model(self) -> BaseModel:
        """The model without what is only its task's; also under transformers' name for it, such as `model.bert`."""
        return base_model(self)

    def __getattr__(self, name: str):
        family = type(self).family
        if family is not None and name and name == family.checkpoint_prefix:
            return self.base_model
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def criteria(self) -> tuple:
        """The losses that the head is trained on; empty for a bare model."""
        return () if self.head is None else self.head.criteria

    @property
    def accepted_inputs(self) -> tuple[str, ...]:
        """The names of the inputs, without labels."""
        return (*self.backbone.input_names, *(() if self.head is None else self.head.input_names))

    @property
    def input_limit(self) -> int | None:
        """The longest row that the model takes, in tokens; None for no limit."""
        return self.backbone.length_limit

    @property
    def token_level_inputs(self) -> dict[str, int]:
        """The inputs of a served model that takes token ids, all of them needed, and how many axes they have."""
        wanted = {"input_ids", "attention_mask", "decoder_input_ids"}
        if getattr(getattr(self.backbone, "embeddings", None), "token_type", None) is not None:
            wanted.add("token_type_ids")
        return {name: 2 for name in self.accepted_inputs if name in wanted}

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
        inputs = self.completed(inputs, labels)
        output, states = self.forward(inputs, training)
        found = self.losses_of(self.seen_labels(labels, inputs), inputs, output) if labels else {}
        return output_of({**found, **output, **(states if output_hidden_states else {})})

    def forward(self, inputs: Mapping, training=None) -> tuple[dict, dict]:
        """What the head makes of inputs without labels, and the backbone's hidden states by name."""
        encoded = self.backbone(inputs, training=training)
        states = {name: value for name, value in encoded.items() if name.endswith("hidden_states")}
        source = {name: value for name, value in encoded.items() if name == "encoder_last_hidden_state"}
        if self.head is None:
            return {"last_hidden_state": encoded["last_hidden_state"], **source}, states
        table = table_or_blocks(self.backbone.token_table)
        return {**self.head(encoded, token_table=table, inputs=inputs, training=training), **source}, states

    def inferred(self, inputs: Mapping, *names: str) -> dict[str, tf.Tensor]:
        """The outputs of these names in float32, of inputs that are known to be right, without dropout."""
        output, _ = self.forward(self.completed(inputs, {}), training=False)
        return {name: tf.cast(output[name], "float32") for name in names}

    def completed(self, inputs: Mapping, labels) -> Mapping:
        """The inputs, with those that follow from the labels where the caller gives none."""
        return inputs

    def without_labels(self, inputs: Mapping) -> tuple[dict, dict]:
        """The inputs of the backbone, and the labels that came with them."""
        names = {criterion.labels for criterion in self.criteria}
        labels = {name: value for name, value in inputs.items() if name in names}
        return {name: value for name, value in inputs.items() if name not in names}, labels

    def check_inputs(self, inputs: Mapping) -> list:
        """Requires inputs without labels that the model can take; see `tfheads.input_checks.check_inputs`."""
        own = () if self.head is None else self.head.input_names
        encoded = {name: value for name, value in inputs.items() if name not in own}
        checks = check_inputs(self.backbone, encoded, self.vocab_size)
        return checks if self.head is None else checks + self.head.check_inputs(inputs)

    def _checks(self, inputs) -> list:
        inputs, labels = self.without_labels(inputs)
        inputs = self.completed(inputs, labels)
        checks = self.check_inputs(inputs)
        for criterion in self._criteria_of(labels):
            checks += criterion.check(inputs, labels)
        return checks

    def _criteria_of(self, labels) -> list:
        """The losses for which there are labels."""
        return [criterion for criterion in self.criteria if criterion.labels in labels]

    def seen_labels(self, labels: Mapping, inputs: Mapping) -> dict:
        """Labels without those that the inputs leave out."""
        seen = {criterion.labels: criterion.seen for criterion in self._criteria_of(labels)}
        return {name: seen[name](value, inputs) if name in seen else value for name, value in labels.items()}

    def losses_of(self, labels: Mapping, inputs: Mapping, output: Mapping) -> dict:
        """`loss`, the sum of the head's losses for which there are labels."""
        criteria = self._criteria_of(labels)
        totals = tf.stack([criterion.total(output, labels) for criterion in criteria])
        return {"loss": losses.mean(totals, tf.stack([criterion.count(labels, inputs) for criterion in criteria]))}

    def gradient_checkpointing_enable(self) -> None:
        """Lets training keep of each block its input alone and compute the rest again: less memory, more time.

        The results are the same. Call it before `fit`; `gradient_checkpointing_disable` takes it back.
        """
        self._rematerialise(True)

    def gradient_checkpointing_disable(self) -> None:
        """Lets training keep all inner values again."""
        self._rematerialise(False)

    def _rematerialise(self, wanted: bool) -> None:
        for _, layer in layers_by_path(self):
            if isinstance(layer, Stack):
                layer.rematerialises = wanted
        self.train_function, self._compiled_steps = None, {}

    def prepare_tf_dataset(
        self, dataset, batch_size: int = 8, shuffle: bool = True, tokenizer=None, **options
    ) -> tf.data.Dataset:
        """Batches of a tokenised `datasets.Dataset` for `fit`, with the columns that the model takes.

        Args:
            dataset: rows of `input_ids` and other inputs, and `labels` if there are any.
            batch_size, shuffle, tokenizer, options: see `tfheads.data.batching.prepare_tf_dataset`.
        """
        from tfheads.data.batching import prepare_tf_dataset  # datasets takes a second to import

        labels = [criterion.labels for criterion in self.criteria]
        labels += ["label", "label_ids"] if "labels" in labels else []
        ids = self.backbone.input_vocab_size
        named = {"columns": self.accepted_inputs, "label_columns": labels, "vocab_size": ids}
        return prepare_tf_dataset(dataset, batch_size, shuffle, tokenizer, **{**named, **options})

    def get_config(self) -> dict:
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        own = {"name": self.name, "config": config_to_dict(self.config), "dtype": policy}
        return own if self.lora is None else {**own, "lora": asdict(self.lora)}

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
            model = cls(config_from_dict(config["config"]), dtype=policy, name=config["name"])
            if "lora" in config:
                model.adapt(LoraSettings(**config["lora"]))
            return model
        check_is_config(config)
        config = with_overrides(config, overrides, cls.config_keys)
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


@task("text-encoding")
class TextEncoder(TaskModel):
    """The hidden values of an encoder-decoder's encoder."""

    auto_name, suffix = "AutoModelForTextEncoding", "EncoderModel"


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


@task("seq2seq-lm")
class ForSeq2SeqLM(Generates, TaskModel):
    """Language model that writes a text from another one: a translation, a summary."""

    auto_name, suffix = "AutoModelForSeq2SeqLM", "ForConditionalGeneration"
    reports_perplexity = True

    def completed(self, inputs: Mapping, labels) -> Mapping:
        """The decoder's inputs are the labels moved by one place, unless the caller gives others."""
        labels = labels.get("labels") if isinstance(labels, Mapping) else None
        if labels is None or "decoder_input_ids" in inputs or "decoder_inputs_embeds" in inputs:
            return inputs
        if labels.shape.rank not in (None, 2):
            raise ValueError(f"labels must have 2 axes [batch, time], got shape {labels.shape}")
        if tf.executing_eagerly():  # else the error would name the decoder's inputs
            within("labels", labels, 0, self.vocab_size - 1, losses.IGNORED)
        return {**inputs, **self.backbone.target_of_labels(labels)}


@task("masked-lm")
class ForMaskedLM(TaskModel):
    """Language model that fills masked tokens."""

    auto_name, suffix = "AutoModelForMaskedLM", "ForMaskedLM"
    reports_perplexity = True


@task("next-sentence-prediction")
class ForNextSentencePrediction(TaskModel):
    """Says whether the second text follows the first (0) or comes from elsewhere (1)."""

    auto_name, suffix = "AutoModelForNextSentencePrediction", "ForNextSentencePrediction"


@task("pre-training")
class ForPreTraining(TaskModel):
    """Trains on everything that the family was pre-trained on."""

    auto_name, suffix = "AutoModelForPreTraining", "ForPreTraining"


class ReadsTwice:
    """Mixin of the models of whole texts: a decoder, where there is one, reads the source too (Lewis et al. 2019)."""

    def completed(self, inputs: Mapping, labels) -> Mapping:
        """The decoder's inputs are the source moved by one place, unless the caller gives others."""
        given = {"decoder_input_ids", "decoder_inputs_embeds"} & set(inputs)
        if not self.backbone.encodes_source or given or inputs.get("input_ids") is None:
            return inputs
        return {**inputs, "decoder_input_ids": self.backbone.moved_right(inputs["input_ids"])}


@task("sequence-classification")
class ForSequenceClassification(ReadsTwice, TaskModel):
    """A class, a number (`num_labels=1`) or a yes or no for each class, by `problem_type`, of a text or two."""

    auto_name, suffix = "AutoModelForSequenceClassification", "ForSequenceClassification"


@task("token-classification")
class ForTokenClassification(TaskModel):
    """A class for each token."""

    auto_name, suffix = "AutoModelForTokenClassification", "ForTokenClassification"


@task("question-answering")
class ForQuestionAnswering(ReadsTwice, TaskModel):
    """Where in a text the answer to a question starts and ends."""

    auto_name, suffix = "AutoModelForQuestionAnswering", "ForQuestionAnswering"


class WithChoices:
    """Mixin of the models whose examples are several rows: inputs `[batch, choices, time]`."""

    @property
    def token_level_inputs(self) -> dict[str, int]:
        own = getattr(self.head, "input_names", ())
        return {**dict.fromkeys(super().token_level_inputs, 3), **dict.fromkeys(own, 2)}

    def forward(self, inputs: Mapping, training=None) -> tuple[dict, dict]:
        """Each choice is a row to the backbone and the head; their outputs get the axis of the choices again."""
        output, states = super().forward(rows_of_choices(inputs), training)
        shape = tf.shape(main_input(inputs))[:2]
        return {name: _with_choices(value, shape) for name, value in output.items()}, states

    def check_inputs(self, inputs: Mapping) -> list:
        for name, value in inputs.items():
            axes = 2 if name in getattr(self.head, "input_names", ()) else 4 if name == "inputs_embeds" else 3
            if value.shape.rank not in (None, axes):
                shape = "[batch, choices" + ", time" * (axes > 2) + ", hidden" * (axes > 3) + "]"
                raise ValueError(f"{name} must have {axes} axes {shape}, got shape {value.shape}")
        given = main_input(inputs).shape
        for name, value in inputs.items():
            if not value.shape[:2].is_compatible_with(given[:2]):
                raise ValueError(f"{name} must have the rows and choices of the others {given[:2]}, got {value.shape}")
        return super().check_inputs(rows_of_choices(inputs))


def main_input(inputs: Mapping):
    """The input that says how many rows there are."""
    main = inputs.get("input_ids", inputs.get("inputs_embeds"))
    if main is None:
        raise ValueError(f"give input_ids or inputs_embeds, one of them; got {', '.join(inputs) or 'nothing'}")
    return main


def rows_of_choices(inputs: Mapping) -> dict:
    """Inputs `[batch, choices, ...]` as `[batch * choices, ...]`."""
    return {name: tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0)) for name, value in inputs.items()}


def _with_choices(value, shape):
    return tf.reshape(value, tf.concat([shape, tf.shape(value)[1:]], 0))


@task("multiple-choice")
class ForMultipleChoice(WithChoices, TaskModel):
    """The best of several texts; each is a row of its own, inputs `[batch, choices, time]`."""

    auto_name, suffix = "AutoModelForMultipleChoice", "ForMultipleChoice"


@task("double-heads")
class DoubleHeadsModel(WithChoices, TaskModel):
    """Predicts next tokens and picks the best of several texts, inputs `[batch, choices, time]`.

    Called with labels it gives `loss` of the tokens and `mc_loss` of the choice apart, as transformers does; `fit`
    trains on their sum.
    """

    auto_name, suffix = "AutoDoubleHeadsModel", "DoubleHeadsModel"

    def losses_of(self, labels, inputs, output):
        found = {}
        for label, name in (("labels", "loss"), ("mc_labels", "mc_loss")):
            if label in labels:
                found[name] = super().losses_of({label: labels[label]}, inputs, output)["loss"]
        return found

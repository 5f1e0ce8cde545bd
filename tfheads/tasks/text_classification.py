"""Classes of short texts, from strings to names."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import transformers

from tfheads.checkpoints.tokenizers import load_tokenizer
from tfheads.models import ReadsTwice, TaskModel
from tfheads.outputs import ModelOutput
from tfheads.preprocessing.label_names import LabelNames
from tfheads.preprocessing.texts import TextReader, are_texts
from tfheads.registry import task
from tfheads.vocabulary import check_tokenizer


@task("text-classification", weights_of="sequence-classification")
class ForTextClassification(ReadsTwice, TaskModel):
    """The class (or number, or classes) of texts: strings in, names of classes out; weights of the sequence classifier.

    Calls, `fit`, `evaluate` and `predict` take texts: a list, an array or a tensor of strings, for pairs of texts a
    list of tuples of two, or a `tf.data.Dataset` of batches of strings (and labels). Texts are cut to the positions of
    the model. Labels are names or ids of classes, for several classes of a text lists of names. Whatever is no text
    goes through as in the sequence classifier. `predict` gives `label_names` beside the `logits`.

    Args:
        tokenizer: reads the texts; `from_pretrained` loads it from the checkpoint, `save_pretrained` and `.keras` files
            keep it.
    """

    auto_name, suffix = "AutoModelForTextClassification", "ForTextClassification"

    def __init__(self, config, tokenizer: transformers.PreTrainedTokenizerBase | None = None, **kwargs):
        super().__init__(config, **kwargs)
        self._reader = None
        self.tokenizer = tokenizer

    @property
    def tokenizer(self) -> transformers.PreTrainedTokenizerBase | None:
        """Reads the texts; may be set.

        Raises:
            TypeError: set to something else than a tokenizer.
            ValueError: it has ids that the model does not take.
        """
        return None if self._reader is None else self._reader.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer):
        if tokenizer is None:
            self._reader = None
            return
        if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
            raise TypeError(f"tokenizer must be one of transformers, got {type(tokenizer).__name__}")
        check_tokenizer(tokenizer, self.vocab_size)
        ids = (self.config.pad_token_id, tokenizer.pad_token_id, 0)  # the head may know padding by the config's id
        fill = next(one for one in ids if one is not None)
        self._reader = TextReader(tokenizer, self.backbone.input_names, self.backbone.length_limit, fill)

    @property
    def label_names(self) -> LabelNames:
        """The classes by name, from the config."""
        return LabelNames(self.config.id2label, self.config.problem_type)

    @classmethod
    def from_config(cls, config, dtype=None, seed: int | None = None, tokenizer=None, **overrides):
        model = super().from_config(config, dtype=dtype, seed=seed, **overrides)
        if tokenizer is not None:
            model.tokenizer = tokenizer
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *, tokenizer=None, **options):
        """As every model's; also loads the checkpoint's tokenizer, unless one is given or there is none."""
        model = super().from_pretrained(pretrained_model_name_or_path, **options)
        where = {name: options[name] for name in ("revision", "token", "cache_dir") if name in options}
        try:
            model.tokenizer = tokenizer or load_tokenizer(pretrained_model_name_or_path, **where)
        except FileNotFoundError:
            model.tokenizer = None  # texts will be an error, ids are not
        return model

    from_pretrained.__func__.__doc__ += "\n\n" + TaskModel.from_pretrained.__doc__

    def save_pretrained(self, save_directory: str, *, tokenizer=None, **options) -> None:
        """As every model's; the tokenizer is written too."""
        super().save_pretrained(save_directory, tokenizer=tokenizer or self.tokenizer, **options)

    def save_assets(self, directory: str) -> None:
        """Puts the tokenizer into a `.keras` file."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(directory)

    def load_assets(self, directory: str) -> None:
        """Takes the tokenizer out of a `.keras` file."""
        self.tokenizer = load_tokenizer(directory)

    def encode(self, texts) -> dict:
        """The model's inputs of texts: arrays, inside a graph tensors.

        Raises:
            ValueError: no tokenizer, or texts that cannot be read.
        """
        if self._reader is None:
            raise ValueError("texts need a tokenizer: set model.tokenizer, or give tokenizer=...; got none")
        in_graph = tf.is_tensor(texts) and not tf.executing_eagerly()
        return self._reader.tensors(texts) if in_graph else self._reader.arrays(texts)

    def __call__(self, inputs=None, *, training: bool = False, **named) -> ModelOutput:
        inputs = self.encode(inputs) if are_texts(inputs) else inputs
        if named.get("labels") is not None:
            named["labels"] = self.label_names.ids(named["labels"])
        return super().__call__(inputs, training=training, **named)

    def fit(self, x=None, y=None, *arguments, **options):
        validation = options.get("validation_data")
        if isinstance(validation, (tuple, list)):
            texts, labels, *weights = validation
            options["validation_data"] = (*self._read(texts, labels), *weights)
        elif validation is not None:
            options["validation_data"], _ = self._read(validation)
        return super().fit(*self._read(x, y), *arguments, **options)

    def evaluate(self, x=None, y=None, *arguments, **options):
        return super().evaluate(*self._read(x, y), *arguments, **options)

    def predict(self, x, *arguments, **options) -> ModelOutput:
        return self._named(super().predict(self._read(x)[0], *arguments, **options))

    def train_on_batch(self, x, y=None, *arguments, **options):
        return super().train_on_batch(*self._read(x, y), *arguments, **options)

    def test_on_batch(self, x, y=None, *arguments, **options):
        return super().test_on_batch(*self._read(x, y), *arguments, **options)

    def predict_on_batch(self, x) -> ModelOutput:
        return self._named(super().predict_on_batch(self._read(x)[0]))

    def _read(self, x, y=None) -> tuple:
        """Texts as the model's inputs, names as ids, all else as it is."""
        if isinstance(x, tf.data.Dataset):
            return self._read_dataset(x), y
        if isinstance(x, (list, tuple)) and not len(x):
            raise ValueError("texts must not be empty, got none")
        x = self.encode(x) if are_texts(x) else x
        return x, y if y is None else self.label_names.ids(y)

    def _read_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        spec = dataset.element_spec
        first = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(first, tf.TensorSpec) or first.dtype != tf.string:
            return dataset
        if first.shape.rank == 0:
            raise ValueError("texts of a dataset must come in batches [batch], got single ones: call .batch(...) on it")
        self.encode(tf.constant(["a"]))  # a tokenizer that is missing is better found here

        @tf.autograph.experimental.do_not_convert
        def read(texts, *labels):
            inputs = self._reader.tensors(texts)
            return (inputs, self.label_names.ids(labels[0]), *labels[1:]) if labels else inputs

        return dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)

    def _named(self, output: Mapping[str, np.ndarray]) -> ModelOutput:
        names = self.label_names.of(np.asarray(output["logits"], "float32"))
        return ModelOutput(output if names is None else {**output, "label_names": names})

"""Metrics that need Python: computed on predictions or generated text after each epoch."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfheads.callbacks.chief import is_chief

PADDING = -100  # fills predictions and labels of batches that are narrower than others


class KerasMetricCallback(keras.callbacks.Callback):
    """Callback that runs the model over a dataset after each epoch and hands predictions and labels to a function.

    Of each batch only what `metric_fn` gets is kept, in main memory. The results appear in the logs under names that
    begin with "val_", so that other callbacks and the history see them.

    Args:
        metric_fn: called with a pair (predictions, labels) of numpy arrays, or of dicts of arrays where there are
            several; returns a dict of numbers. Rows of different width are filled with -100 on the right.
        eval_dataset: batches as for `model.evaluate`; or arrays, together with `batch_size`.
        output_cols: names of the outputs that are kept; None for all but the loss.
        label_cols: names of the labels among the inputs; None finds them.
        batch_size: for arrays.
        predict_with_generate: whether predictions are made by `model.generate`.
        use_xla_generation: whether XLA compiles the generation.
        generate_kwargs: options of `model.generate`.

    Raises:
        ValueError: labels or outputs that are not there, or arrays without `batch_size`.
        TypeError: `metric_fn` does not return a dict.
    """

    def __init__(
        self,
        metric_fn: Callable,
        eval_dataset,
        output_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | None = None,
        batch_size: int | None = None,
        predict_with_generate: bool = False,
        use_xla_generation: bool = False,
        generate_kwargs: Mapping | None = None,
    ):
        super().__init__()
        if not isinstance(eval_dataset, tf.data.Dataset):
            if batch_size is None:
                raise ValueError("batch_size must be given with an eval_dataset that is not a tf.data.Dataset")
            eval_dataset = tf.data.Dataset.from_tensor_slices(eval_dataset).batch(batch_size)
        self.metric_fn = metric_fn
        self.eval_dataset = eval_dataset
        self.output_cols = None if output_cols is None else list(output_cols)
        self.label_cols = _label_columns(eval_dataset.element_spec, label_cols)
        self.predict_with_generate = predict_with_generate
        self.use_xla_generation = use_xla_generation
        self.generate_kwargs = dict(generate_kwargs or {})

    def on_epoch_end(self, epoch, logs=None):
        results = self.metric_fn(self._predictions_and_labels())
        if not isinstance(results, Mapping):
            raise TypeError(f"metric_fn must return a dict of names and numbers, got {type(results).__name__}")
        if logs is not None:
            logs.update({name if name.startswith("val_") else f"val_{name}": results[name] for name in results})

    def _predictions_and_labels(self) -> tuple:
        predictions, labels = [], []
        for batch in tqdm(self.eval_dataset, desc="Metrics", delay=3, leave=False, disable=not is_chief(self.model)):
            inputs, apart = (batch[0], batch[1]) if isinstance(batch, tuple) else (batch, None)
            predictions.append(self._predict(inputs))
            labels.append(
                _numpy(apart if self.label_cols is None else {name: inputs[name] for name in self.label_cols})
            )
        if not labels:
            raise ValueError("eval_dataset must have a batch, got none")
        return _joined(predictions), _joined(labels)

    def _predict(self, inputs):
        if self.predict_with_generate:
            if not isinstance(inputs, Mapping):
                inputs = {"input_ids": inputs}
            names = {"input_ids", "attention_mask"} & set(inputs)
            options = {"jit_compile": self.use_xla_generation, **self.generate_kwargs}
            return _numpy(self.model.generate({name: inputs[name] for name in names}, **options))
        if isinstance(inputs, Mapping):
            inputs = {name: value for name, value in inputs.items() if name not in (self.label_cols or ())}
        outputs = self.model.predict_on_batch(inputs)
        if isinstance(outputs, Mapping):
            wanted = self.output_cols or [name for name in outputs if name != "loss"]
            missing = [name for name in wanted if name not in outputs]
            if missing:
                raise ValueError(f"output_cols must be among {', '.join(outputs)}, got {', '.join(missing)}")
            outputs = {name: outputs[name] for name in wanted}
        return _numpy(outputs)


def _label_columns(spec, label_cols: Sequence[str] | None) -> list[str] | None:
    """The names of the labels among the inputs; None where labels are apart."""
    inputs, apart = (spec[0], spec[1]) if isinstance(spec, tuple) and len(spec) > 1 else (spec, None)
    names = set(inputs) if isinstance(inputs, Mapping) else set()
    if label_cols is not None:
        missing = [name for name in label_cols if name not in names]
        if missing:
            raise ValueError(f"label_cols must be columns of eval_dataset, got {', '.join(missing)}")
        return list(label_cols)
    if apart is not None:
        return None
    for found in (["labels"], ["start_positions", "end_positions"]):
        if names.issuperset(found):
            return found
    raise ValueError(f"label_cols must be given, eval_dataset has no labels among {', '.join(sorted(names)) or 'it'}")


def _numpy(values):
    """Tensors as arrays; a mapping as a dict."""
    if isinstance(values, Mapping):
        return {name: np.asarray(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return {str(place): np.asarray(value) for place, value in enumerate(values)}
    return np.asarray(values)


def _joined(batches: list):
    """The rows of all batches; the array alone where a dict has one entry."""
    if not isinstance(batches[0], dict):
        return _concatenated(batches)
    joined = {name: _concatenated([batch[name] for batch in batches]) for name in batches[0]}
    return next(iter(joined.values())) if len(joined) == 1 else joined


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    if arrays[0].ndim < 2 or len({array.shape[1] for array in arrays}) == 1:
        return np.concatenate(arrays)
    width = max(array.shape[1] for array in arrays)
    rows = sum(len(array) for array in arrays)
    result = np.full((rows, width, *arrays[0].shape[2:]), PADDING, arrays[0].dtype)
    start = 0
    while arrays:  # each is let go as soon as it is copied
        array = arrays.pop(0)
        result[start : start + len(array), : array.shape[1]] = array
        start += len(array)
    return result

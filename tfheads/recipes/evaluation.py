"""What a run finds out on its evaluation data: the loss alone, or measures of the task from what the model predicts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfheads.data.pipeline import BatchSource
from tfheads.distribute import is_chief

Outputs = Mapping[str, np.ndarray]
PADDING = -100  # fills rows of outputs that are shorter than others


class LossEvaluation:
    """The loss over all labels, and for language models the perplexity.

    Args:
        batches: the whole evaluation data, once.
        rows: how many rows it has.
    """

    def __init__(self, batches: tf.data.Dataset, rows: int):
        self.batches, self.rows = batches, rows

    def __call__(self, model) -> dict[str, float]:
        """The results by name."""
        return model.evaluate(self.batches, verbose=0, return_dict=True)


class TaskEvaluation:
    """The loss and the task's own measures, from one pass over the data.

    Args:
        source: the evaluation data.
        batch_size: rows of a batch.
        measures: from the model's outputs `[rows, ...]`, in the order of the data, to results by name; see `predict`.
        outputs: names of the outputs that `measures` needs.
    """

    def __init__(
        self,
        source: BatchSource,
        batch_size: int,
        measures: Callable[[Outputs], Mapping[str, float]],
        outputs: Sequence[str] = ("logits",),
    ):
        self.source, self.batch_size, self.measures, self.outputs = source, batch_size, measures, tuple(outputs)
        self.rows = source.rows

    def __call__(self, model) -> dict[str, float]:
        """The results by name, `loss` among them if the data has labels."""
        outputs, loss = predict(model, self.source, self.batch_size, self.outputs)
        return {**({} if loss is None else {"loss": loss}), **self.measures(outputs)}


class JoinedEvaluation:
    """Several evaluations as one: the first gives the plain names, the others add their suffix to theirs.

    Args:
        parts: evaluations by suffix, such as `{"": matched, "_mm": mismatched}`.
    """

    def __init__(self, parts: Mapping[str, Callable]):
        self.parts = dict(parts)
        self.rows = sum(part.rows for part in self.parts.values())

    def __call__(self, model) -> dict[str, float]:
        """The results by name."""
        return {f"{name}{suffix}": value for suffix, part in self.parts.items() for name, value in part(model).items()}


def predict(
    model, source: BatchSource, batch_size: int, names: Sequence[str] = ("logits",)
) -> tuple[dict[str, np.ndarray], float | None]:
    """The model's outputs for each row, in the order of the data, and the loss over all rows.

    Args:
        model: a compiled or new task model.
        source: rows with or without labels.
        batch_size: rows of a batch.
        names: the outputs to keep.

    Returns:
        Outputs `[rows, ...]` by name, float32, filled with -100 on the side of the padding where batches have several
        widths; and the loss, None if there are no labels.
    """
    found, totals = {name: [] for name in names}, []
    batches = source.batches(batch_size, shuffle=False, drop_remainder=False)
    for batch in tqdm(batches, desc="Evaluation", delay=3, leave=False, disable=not is_chief(model)):
        inputs, labels = model.without_labels(batch)
        output = model.predict_on_batch(inputs)
        for name in names:
            found[name].append(np.asarray(output[name], "float32"))
        if labels:
            totals.append(_totals(model, inputs, labels, output))
    order = source.row_order(batch_size)
    return {name: _in_order(parts, order, source.pads_left) for name, parts in found.items()}, _mean(totals)


def _totals(model, inputs: Mapping, labels: Mapping, output: Mapping) -> np.ndarray:
    """The loss of a batch as `[2, criteria]`: totals and counts."""
    labels = model.seen_labels(labels, inputs)
    pairs = [(one.total(output, labels), one.count(labels, inputs)) for one in model.criteria]
    return np.array(pairs, "float64").T


def _mean(totals: Sequence[np.ndarray]) -> float | None:
    if not totals:
        return None
    total, count = np.sum(totals, axis=0)
    return float(np.divide(total, count, out=np.zeros_like(total), where=count > 0).sum())


def _in_order(parts: list[np.ndarray], order: np.ndarray, pads_left: bool) -> np.ndarray:
    """The rows of all batches, each at its number in `order`; batches may have different widths."""
    shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
    result = np.full((len(order), *shape), PADDING, "float32")
    start = 0
    for part in parts:
        rows = order[start : start + len(part)]
        if part.ndim > 1:
            width = part.shape[1]
            result[rows, slice(shape[0] - width, None) if pads_left else slice(width)] = part
        else:
            result[rows] = part
        start += len(part)
    return result

"""Between the names of classes and their ids."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfheads.checks import after, require


class LabelNames:
    """The classes of a classifier by name.

    Args:
        id2label: the name of each class by its id, as in a config.
        problem_type: "multi_label_classification" where a text has several classes, as in a config.
    """

    def __init__(self, id2label: Mapping[int, str], problem_type: str | None = None):
        self.names = [str(id2label[index]) for index in sorted(id2label)]
        self.several = problem_type == "multi_label_classification"
        self.numbers = problem_type == "regression" or (problem_type is None and len(self.names) == 1)

    def ids(self, labels):
        """Labels as numbers: ids of names `[batch]`, 0 and 1 `[batch, classes]` of lists of names, all else as it is.

        Args:
            labels: a list, an array or a tensor of names, a list of lists of names for several classes, or numbers.

        Raises:
            ValueError: a name that there is not, or names where numbers or lists of names are wanted.
        """
        if tf.is_tensor(labels):
            return self._tensor(labels) if labels.dtype == tf.string else labels
        given = _as_list(labels)
        if not given or not any(isinstance(one, (str, bytes, list, tuple, set)) for one in given):
            return labels
        if self.several and not all(_is_number(value) for one in given if not isinstance(one, str) for value in one):
            return self._zeros_and_ones(given)
        if not any(isinstance(one, (str, bytes)) for one in given):
            return labels
        if self.numbers or self.several:
            wanted = "numbers" if self.numbers else "lists of names or 0 and 1 for each class"
            raise ValueError(f"labels must be {wanted} for this problem_type, got {given[0]!r}")
        return np.array([self._id(one) for one in given], "int32")

    def of(self, logits: np.ndarray) -> np.ndarray | None:
        """The likeliest class of each row `[batch]`, or a tuple of all likely ones; None where logits are numbers."""
        if self.numbers:
            return None
        if not self.several:
            return np.array(self.names)[np.argmax(logits, axis=-1)]
        found = np.empty(len(logits), object)
        for row, values in enumerate(logits):
            found[row] = tuple(name for name, value in zip(self.names, values, strict=True) if value > 0)
        return found

    def _zeros_and_ones(self, given) -> np.ndarray:
        rows = np.zeros((len(given), len(self.names)), "float32")
        for row, names in enumerate(given):
            if isinstance(names, (str, bytes)):
                raise ValueError(f"labels must be lists of names, for texts have several, got {names!r}")
            rows[row, [self._id(name) for name in names]] = 1
        return rows

    def _id(self, name) -> int:
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.0)[0]
            raise ValueError(f"labels must be among {', '.join(self.names)}, got {name!r}, the nearest is {near!r}")
        return self.names.index(name)

    def _tensor(self, labels: tf.Tensor) -> tf.Tensor:
        """Ids of a tensor of names, in the graph."""
        if self.numbers or self.several or labels.shape.rank != 1:
            raise ValueError(f"labels must be numbers here, or names [batch] of one class each, got {labels.shape}")
        same = labels[:, None] == tf.constant(self.names)
        known = tf.reduce_any(same, axis=1)
        wrong = tf.concat([tf.boolean_mask(labels, ~known), [""]], 0)[0]
        checks = require(tf.reduce_all(known), f"labels must be among {', '.join(self.names)}", wrong)
        return after(checks, tf.argmax(same, axis=1, output_type=tf.int32))


def _as_list(labels) -> list:
    if isinstance(labels, np.ndarray):
        return labels.tolist()
    return list(labels) if isinstance(labels, Sequence) and not isinstance(labels, (str, bytes)) else []


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number))

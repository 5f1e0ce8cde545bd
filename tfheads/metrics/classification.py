"""Measures of classes and of numbers for each row: accuracy, F1, Matthews' and others' correlations."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Measure = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The part of the rows whose class is right."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 among two classes; of more classes the mean of the F1 of each."""
    from sklearn.metrics import f1_score  # takes a second to import

    average = "binary" if max(predictions.max(), labels.max()) < 2 else "macro"
    return float(f1_score(labels, predictions, average=average, zero_division=0))


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews' correlation of classes, from -1 to 1; 0 if all rows get one class."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions)) if _vary(predictions, labels) else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation of numbers; 0 if one side does not vary."""
    from scipy.stats import pearsonr

    return float(pearsonr(predictions, labels).statistic) if _vary(predictions, labels) else 0.0


def spearmanr(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's correlation: Pearson's of the ranks; 0 if one side does not vary."""
    from scipy.stats import spearmanr as ranks_correlated

    return float(ranks_correlated(predictions, labels).statistic) if _vary(predictions, labels) else 0.0


def mse(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared error of numbers."""
    return float(np.mean((predictions - labels) ** 2))


MEASURES: dict[str, Measure] = {
    measure.__name__: measure for measure in (accuracy, f1, matthews_correlation, pearson, spearmanr, mse)
}
OF_NUMBERS = ("pearson", "spearmanr", "mse")


def measured(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Several measures by name.

    Args:
        names: keys of `MEASURES`.
        predictions, labels: `[rows]`, classes or numbers.

    Raises:
        ValueError: rows of another number, or an unknown name.
    """
    if np.shape(predictions) != np.shape(labels):
        raise ValueError(
            f"predictions must be one for each label {np.shape(labels)}, got shape {np.shape(predictions)}"
        )
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r}, known are {', '.join(MEASURES)}")
    return {name: MEASURES[name](np.asarray(predictions), np.asarray(labels)) for name in names}


def with_combined_score(results: Mapping[str, float]) -> dict[str, float]:
    """The results, and their mean as `combined_score` if there are several, as GLUE counts."""
    if len(results) < 2:
        return dict(results)
    return {**results, "combined_score": float(np.mean(list(results.values())))}


def _vary(*values: np.ndarray) -> bool:
    return all(np.ptp(value) > 0 for value in values)

"""Measures of labelled words: entities found and missed, as the conlleval script of CoNLL-2000 counts them."""

import warnings
from collections.abc import Sequence


def entity_measures(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]], by_type: bool = False
) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, and the accuracy of words, by seqeval.

    Args:
        predictions, labels: for each row the names of its labels, such as "B-PER" and "O".
        by_type: whether also each type's own, as `PER_f1`, `PER_number`, ...

    Raises:
        ImportError: seqeval is not installed.
        ValueError: rows of different lengths.
    """
    try:
        from seqeval.metrics import accuracy_score, classification_report
    except ImportError:
        raise ImportError("seqeval must be installed to measure entities: pip install tfheads[metrics]") from None
    for row, (found, wanted) in enumerate(zip(predictions, labels, strict=True)):
        if len(found) != len(wanted):
            raise ValueError(f"predictions must be one for each label, row {row} has {len(found)} for {len(wanted)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names without B- or I-, as those of parts of speech
        accuracy = accuracy_score(labels, predictions)
        entities = any(name != "O" for row in (*labels, *predictions) for name in row)
        report = classification_report(labels, predictions, output_dict=True, zero_division=0) if entities else {}
    overall = report.pop("micro avg", {"precision": 0.0, "recall": 0.0, "f1-score": 0.0})
    found = {name: float(overall[key]) for name, key in _KEYS.items()} | {"accuracy": float(accuracy)}
    if by_type:
        for kind, values in report.items():
            if not kind.endswith(" avg"):
                found |= {f"{kind}_{name}": float(values[key]) for name, key in _KEYS.items()}
                found[f"{kind}_number"] = int(values["support"])
    return found


_KEYS = {"precision": "precision", "recall": "recall", "f1": "f1-score"}

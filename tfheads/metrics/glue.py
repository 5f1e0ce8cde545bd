"""The tasks of GLUE: their columns, their classes and how they are measured (Wang et al. 2018)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GlueTask:
    """A task of GLUE.

    Attributes:
        columns: the columns with the text.
        labels: the classes in order; none for a regression.
        measures: names of measures in `tfheads.metrics.classification`.
        parts: suffixes of the validation and test splits, with the suffix that each adds to the names of the results.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    measures: tuple[str, ...] = ("accuracy",)
    parts: tuple[tuple[str, str], ...] = (("", ""),)


DATASET = "nyu-mll/glue"
TASKS = {
    "cola": GlueTask(("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
    "mnli": GlueTask(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        parts=(("_matched", ""), ("_mismatched", "_mm")),
    ),
    "mrpc": GlueTask(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qnli": GlueTask(("question", "sentence"), ("entailment", "not_entailment")),
    "qqp": GlueTask(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "rte": GlueTask(("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "sst2": GlueTask(("sentence",), ("negative", "positive")),
    "stsb": GlueTask(("sentence1", "sentence2"), (), ("pearson", "spearmanr")),
    "wnli": GlueTask(("sentence1", "sentence2"), ("not_entailment", "entailment")),
}

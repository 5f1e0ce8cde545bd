"""Classes and numbers for texts that are longer than a model's positions."""

import dataclasses

from tfheads.heads.documents import WINDOW_POOLINGS
from tfheads.recipes.arguments import TextClassificationArguments
from tfheads.recipes.command_line import argument
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.text_classification import text_classification
from tfheads.recipes.training import TrainingRun
from tfheads.tasks.document_classification import ForDocumentClassification

WHOLE = 2**20  # tokens, of which a row never has so many


@dataclasses.dataclass(kw_only=True)
class WindowArguments:
    """How documents are cut into windows."""

    window_pooling: str | None = argument(
        None, "mean, max or attention over windows; default: the checkpoint's, or mean"
    )
    window_length: int | None = argument(None, "tokens of a window; default: all positions of the model", at_least=1)
    window_stride: int | None = argument(None, "tokens from window to window; default: half a window", at_least=1)
    window_budget: int | None = argument(None, "windows that are encoded at a time, 8 by default", at_least=1)
    max_windows: int | None = argument(None, "documents of more windows are an error; default: no limit", at_least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.window_pooling not in (None, *WINDOW_POOLINGS):
            names = ", ".join(WINDOW_POOLINGS)
            raise ValueError(f"window_pooling must be one of {names}, got {self.window_pooling!r}")
        if self.pad_to_max_length and self.max_seq_length is None:
            raise ValueError("pad_to_max_length needs max_seq_length, documents have no other limit")


@dataclasses.dataclass(kw_only=True)
class DocumentClassificationArguments(WindowArguments, TextClassificationArguments):
    """Trains a model to tell the class of a text of any length, read in overlapping windows; max_seq_length cuts it."""


def run_document_classification(arguments: DocumentClassificationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(document_classification, arguments)


def document_classification(arguments: DocumentClassificationArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    given = {name: getattr(arguments, name) for name in ForDocumentClassification.config_keys}
    windows = {name: value for name, value in given.items() if value is not None}
    return text_classification(arguments, ForDocumentClassification, _length, **windows)


def _length(arguments: DocumentClassificationArguments, tokenizer, model: ForDocumentClassification) -> int:
    """Documents are as long as they are, unless max_seq_length cuts them."""
    return WHOLE if arguments.max_seq_length is None else arguments.max_seq_length

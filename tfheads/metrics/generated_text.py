"""Measures of texts on what KerasMetricCallback gives: token ids."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np


class GeneratedTextMeasure:
    """A measure of texts as a `metric_fn` of `KerasMetricCallback(predict_with_generate=True)`.

    Args:
        measure: from texts and the right ones to results by name, such as `rouge_measures` or `bleu_measures`.
        tokenizer: makes texts of token ids; -100 and special tokens are left out.
    """

    def __init__(self, measure: Callable[[Sequence[str], Sequence[str]], Mapping[str, float]], tokenizer):
        self.measure, self.tokenizer = measure, tokenizer

    def __call__(self, predictions_and_labels: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
        """The results, from token ids `[rows, time]` of the generated texts and of the labels."""
        return dict(self.measure(*map(self.texts, predictions_and_labels)))

    def texts(self, ids: np.ndarray) -> list[str]:
        """The text of each row."""
        rows = [row[row >= 0].tolist() for row in np.asarray(ids)]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

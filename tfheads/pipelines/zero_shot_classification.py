"""The zero-shot-classification pipeline."""

import logging
from typing import NamedTuple

import numpy as np

from tfheads.pipelines.rows import Pair, RowsPipeline, softmax

logger = logging.getLogger("tfheads")
TEMPLATE = "This example is {}."


class ZeroShotSettings(NamedTuple):
    """The options of a call: the labels, what each becomes as a hypothesis, whether several may be true."""

    labels: list[str]
    hypotheses: list[str]
    multi_label: bool


class ZeroShotClassificationPipeline(RowsPipeline):
    """Which of the caller's labels fit a text, by a model of natural language inference (Yin et al. 2019).

    Each label is put into a hypothesis; the model says how far the text entails it. An answer is
    `{"sequence", "labels", "scores"}`, best first. A text that is too long is cut; the hypotheses are not.

    Options:
        candidate_labels: a list of labels, or a string of labels with commas between them; may be the second argument.
        hypothesis_template: with `{}` where the label goes; default "This example is {}."
        multi_label: False compares the labels with one another, their scores sum to 1; True scores each by itself,
            entailment against contradiction.
    """

    task, model_task = "zero-shot-classification", "sequence-classification"
    option_names = ("candidate_labels", "hypothesis_template", "multi_label")

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        if model.config.num_labels < 2:
            raise ValueError(
                f"model must have a label for entailment and one for contradiction in {self.task!r}, got 1 label"
            )
        if self.entailment_id == -1:
            logger.warning(
                "zero-shot-classification: no label of the model begins with 'entail', its last one, %r, is taken",
                model.config.id2label[model.config.num_labels - 1],
            )

    def __call__(self, sequences, candidate_labels=None, *, batch_size: int | None = None, **options):
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        return super().__call__(sequences, batch_size=batch_size, **options)

    @property
    def entailment_id(self) -> int:
        """The place of the label that stands for entailment; -1 if no label's name begins with "entail"."""
        for label, place in self.model.config.label2id.items():
            if label.lower().startswith("entail"):
                return place
        return -1

    def settings(self, options: dict) -> ZeroShotSettings:
        labels = candidate_labels(options.get("candidate_labels"))
        template = options.get("hypothesis_template", TEMPLATE)
        return ZeroShotSettings(labels, hypotheses(template, labels), bool(options.get("multi_label", False)))

    def rows(self, example: Pair, settings: ZeroShotSettings) -> list[dict]:
        return [self._row(example.text, hypothesis) for hypothesis in settings.hypotheses]

    def _row(self, text: str, hypothesis: str) -> dict:
        limit = self.model.backbone.length_limit
        whole = len(self.tokenizer([""], [hypothesis], verbose=False)["input_ids"][0])
        # A hypothesis that leaves no room for the text is left whole, and is an error below if it is too long itself.
        longest = self.tokenizer.model_max_length if limit is None else min(limit, self.tokenizer.model_max_length)
        return self.encode_row(text, hypothesis, **({"truncation": "only_first"} if whole < longest else {}))

    def finish(self, example, rows, outputs, settings: ZeroShotSettings) -> dict:
        logits = np.stack([output["logits"] for output in outputs])
        entailment = self.entailment_id
        if settings.multi_label or len(settings.labels) == 1:
            contradiction = -1 if entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, entailment]])[:, 1]
        else:
            scores = softmax(logits[:, entailment])
        order = scores.argsort()[::-1].tolist()
        return {
            "sequence": example.text,
            "labels": [settings.labels[index] for index in order],
            "scores": [float(scores[index]) for index in order],
        }


def candidate_labels(given) -> list[str]:
    """Labels as a list, from a list or from a string with commas.

    Raises:
        ValueError: there are none.
        TypeError: they are no strings.
    """
    labels = [label.strip() for label in given.split(",") if label.strip()] if isinstance(given, str) else given
    if labels is None or (isinstance(labels, (list, tuple)) and not labels):
        raise ValueError(f"candidate_labels must hold at least one label, got {given!r}")
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"candidate_labels must be a list of strings or a string with commas, got {given!r}")
    return list(labels)


def hypotheses(template: str, labels: list[str]) -> list[str]:
    """The template with each label in it.

    Raises:
        ValueError: it has no `{}`, or something else between braces.
    """
    message = f"hypothesis_template must be a string with {{}} where the label goes, got {template!r}"
    if not isinstance(template, str):
        raise ValueError(message)
    try:
        made = [template.format(label) for label in labels]
    except (LookupError, ValueError):
        raise ValueError(message) from None
    if made[0] == template:
        raise ValueError(message)
    return made

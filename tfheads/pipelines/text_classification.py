"""The text-classification pipeline."""

from typing import NamedTuple

import numpy as np

from tfheads.pipelines.base import whole_number_option
from tfheads.pipelines.rows import TOKENIZER_OPTIONS, Pair, RowsPipeline, sigmoid, softmax, tokenizer_options

FUNCTIONS = {"softmax": softmax, "sigmoid": sigmoid, "none": lambda logits: logits}


class TextClassificationSettings(NamedTuple):
    """The options of a call.

    Attributes:
        function: makes scores of logits; its name in `FUNCTIONS`.
        top_k: how many labels; None for all.
        listed: whether an answer is a list even if it is one label.
        sorted: whether the best comes first, or the labels stand in the config's order.
        tokenizer_kwargs: for the tokenizer.
    """

    function: str
    top_k: int | None
    listed: bool
    sorted: bool
    tokenizer_kwargs: dict


class TextClassificationPipeline(RowsPipeline):
    """The label of a text or of a pair of texts; also called sentiment-analysis.

    An input is a string or `{"text", "text_pair"}`. An answer is `{"label", "score"}`, with `top_k` a list of them,
    best first. As in transformers, a string alone gives its answer in a list unless the call itself has `top_k`.

    Options:
        top_k: how many labels; None for all. Without it there is the best one, not in a list.
        function_to_apply: "softmax", "sigmoid" or "none"; default None: "none" for a regression, "sigmoid" for one
            label or a multi-label model, else "softmax".
        return_all_scores: True gives all labels in the config's order; transformers had it before `top_k`.
        truncation, max_length, padding, add_special_tokens: of the tokenizer; a text that is too long is an error
            unless `truncation=True`.
    """

    task, model_task = "text-classification", "sequence-classification"
    option_names = ("top_k", "function_to_apply", "return_all_scores", *TOKENIZER_OPTIONS)
    fields = ("text", "text_pair")

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        self.settings(self.options)

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        answer = super().__call__(inputs, batch_size=batch_size, **options)
        return [answer] if isinstance(inputs, str) and "top_k" not in options else answer

    def settings(self, options: dict) -> TextClassificationSettings:
        function = function_of(self.model.config, options.get("function_to_apply"))
        if "top_k" in options:
            top_k, listed, in_order = options["top_k"], True, True
        else:
            listed = bool(options.get("return_all_scores"))
            top_k, in_order = (None, False) if listed else (1, True)
        if top_k is not None:
            whole_number_option("top_k", top_k)
        return TextClassificationSettings(function, top_k, listed, in_order, tokenizer_options(options))

    def rows(self, example: Pair, settings: TextClassificationSettings) -> list[dict]:
        # An empty second text is none, as in transformers.
        return [self.encode_row(example.text, example.text_pair or None, **settings.tokenizer_kwargs)]

    def finish(self, example, rows, outputs, settings: TextClassificationSettings):
        scores = FUNCTIONS[settings.function](outputs[0]["logits"])
        order = np.argsort(-scores, kind="stable") if settings.sorted else np.arange(len(scores))
        labels = self.model.config.id2label
        answer = [{"label": labels[index], "score": float(scores[index])} for index in order[: settings.top_k].tolist()]
        return answer if settings.listed else answer[0]


def function_of(config, name: str | None) -> str:
    """The name in `FUNCTIONS`, that of the model's kind for None.

    Raises:
        ValueError: there is none of this name.
    """
    if name is None or name == "default":
        if config.problem_type == "regression":
            return "none"
        one_each = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "sigmoid" if one_each else "softmax"
    if not isinstance(name, str) or name.lower() not in FUNCTIONS:
        raise ValueError(f"function_to_apply must be one of {', '.join(map(repr, FUNCTIONS))}, got {name!r}")
    return name.lower()

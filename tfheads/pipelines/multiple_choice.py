"""The multiple-choice pipeline."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfheads.pipelines.base import text_of
from tfheads.pipelines.rows import TOKENIZER_OPTIONS, RowsPipeline, softmax, tokenizer_options


class Question(NamedTuple):
    """A prompt and what may follow it; None for the choices of the call."""

    prompt: str
    choices: list[str] | None = None


class MultipleChoiceSettings(NamedTuple):
    """The options of a call: the choices for prompts without their own, and the tokenizer's options."""

    choices: list[str] | None
    tokenizer_kwargs: dict


class MultipleChoicePipeline(RowsPipeline):
    """The choice that fits a prompt best. transformers has no such pipeline.

    An input is `{"prompt", "choices"}`, or a string with `choices` in the call. Each choice is the second text of a
    pair with the prompt. An answer is `{"choice", "index", "score", "scores"}`: the best choice, its place, its
    probability, and those of all choices in the order given.

    Options:
        choices: for the inputs that are strings; two or more. May be the second argument.
        truncation, max_length, padding, add_special_tokens: of the tokenizer; a text that is too long is an error
            unless `truncation` is given ("only_first" cuts the prompt alone).
    """

    task, model_task = "multiple-choice", "multiple-choice"
    option_names = ("choices", *TOKENIZER_OPTIONS)
    fields = ("prompt", "choices")

    def __call__(self, inputs, choices: list[str] | None = None, *, batch_size: int | None = None, **options):
        if choices is not None:
            options["choices"] = choices
        return super().__call__(inputs, batch_size=batch_size, **options)

    def settings(self, options: dict) -> MultipleChoiceSettings:
        choices = options.get("choices")
        return MultipleChoiceSettings(None if choices is None else checked(choices), tokenizer_options(options))

    def example(self, value, place: str = "") -> Question:
        if not isinstance(value, Mapping):
            return Question(text_of(value, f"inputs must be {self.wanted()}, got {type(value).__name__}{place}"))
        if set(value) != set(self.fields):
            named = ", ".join(map(repr, value)) or "nothing"
            raise ValueError(f"inputs must be {self.wanted()}, got a dictionary of {named}{place}")
        prompt = text_of(value["prompt"], f"'prompt' must be a string, got {type(value['prompt']).__name__}{place}")
        return Question(prompt, checked(value["choices"], place))

    def size_of(self, example: Question) -> int:
        return len(example.prompt) + max(map(len, example.choices or [""]))

    def rows(self, example: Question, settings: MultipleChoiceSettings) -> list[dict]:
        choices = self.choices(example, settings)
        return [self.encode_row(example.prompt, choice, **settings.tokenizer_kwargs) for choice in choices]

    @staticmethod
    def choices(example: Question, settings: MultipleChoiceSettings) -> list[str]:
        """The choices of an example.

        Raises:
            ValueError: neither it nor the call has any.
        """
        choices = settings.choices if example.choices is None else example.choices
        if choices is None:
            raise ValueError("choices must be given with a prompt that is a string, got None")
        return choices

    def shaped(self, values: tf.Tensor) -> tf.Tensor:
        # Choices do not see each other: each is an example of one choice here, and they are compared in `finish`.
        return values[:, None, :]

    def finish(self, example, rows, outputs, settings: MultipleChoiceSettings) -> dict:
        scores = softmax(np.concatenate([output["logits"] for output in outputs]))
        best = int(scores.argmax())
        choice = self.choices(example, settings)[best]
        return {"choice": choice, "index": best, "score": float(scores[best]), "scores": scores.tolist()}


def checked(choices, place: str = "") -> list[str]:
    """Choices as a list.

    Raises:
        TypeError: they are no list of strings.
        ValueError: there are fewer than two.
    """
    if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) for choice in choices):
        raise TypeError(f"choices must be a list of strings, got {choices!r}{place}")
    if len(choices) < 2:
        raise ValueError(f"choices must be at least 2, got {len(choices)}{place}")
    return list(choices)

"""What all pipelines share: strings one by one, in lists or as a stream; batches; progress."""

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf
import transformers
from tqdm.auto import tqdm

from tfheads.backbones import check_inputs
from tfheads.models import TaskModel

SECONDS_BEFORE_PROGRESS = 3.0


class Pipeline:
    """A model, its tokenizer and the way from strings to answers.

    Args:
        model: a model of the pipeline's task.
        tokenizer: the model's tokenizer.
        batch_size: how many strings go through the model at once.
        options: defaults for the options of each call.

    Raises:
        ValueError: the model is of another task, or an option is not known.
    """

    task: str
    model_task: str
    option_names: tuple[str, ...] = ()

    def __init__(
        self, model: TaskModel, tokenizer: transformers.PreTrainedTokenizerBase, batch_size: int = 8, **options
    ):
        if model.task != self.model_task:
            raise ValueError(f"model must be for {self.model_task!r} in {self.task!r}, got {type(model).__name__}")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, _batch_size(batch_size)
        self.options = self.check_options(options)

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        """Answers.

        Args:
            inputs: a string, a list of strings, or any other iterable of strings.
            batch_size: how many strings go through the model at once; None takes the pipeline's.
            options: see the class.

        Returns:
            The answer for a string, a list of answers for a list, an iterator over answers for anything else; the
            iterator reads its input as it goes.

        Raises:
            TypeError: the input is not made of strings.
            ValueError: a string that cannot be answered, or an option that is not known.
        """
        size = self.batch_size if batch_size is None else _batch_size(batch_size)
        settings = self.settings({**self.options, **self.check_options(options)})
        if isinstance(inputs, str):
            return self.answer([inputs], settings)[0]
        if isinstance(inputs, (list, tuple)):
            return self._answer_list(list(inputs), size, settings)
        if isinstance(inputs, Mapping) or not isinstance(inputs, Iterable):
            raise TypeError(f"inputs must be a string or strings, got {type(inputs).__name__}")
        return self._answer_stream(iter(inputs), size, settings)

    def check_options(self, options: Mapping) -> dict:
        """The options as a dictionary.

        Raises:
            ValueError: one is not known; names the nearest.
        """
        for name in options:
            if name not in self.option_names:
                near = difflib.get_close_matches(name, self.option_names, n=1, cutoff=0.0)[0]
                raise ValueError(f"{self.task} has no option {name!r}, the nearest is {near!r}")
        return dict(options)

    def settings(self, options: dict):
        """The options of a call, checked and completed, in the form that `answer` wants."""
        return options

    def answer(self, texts: list[str], settings) -> list:
        """The answers for one batch."""
        raise NotImplementedError

    def encode(self, texts: list[str], padding_side: str = "right", **tokenizer_kwargs) -> dict[str, tf.Tensor]:
        """The model's inputs `[batch, time]`, padded to the longest string.

        Raises:
            ValueError: a string has more tokens than the model has positions.
        """
        known = self.model.backbone.input_names
        limit = self.model.backbone.length_limit
        if tokenizer_kwargs.get("truncation") and "max_length" not in tokenizer_kwargs and limit is not None:
            tokenizer_kwargs["max_length"] = min(limit, self.tokenizer.model_max_length)
        encoded = self.tokenizer(texts, return_attention_mask=True, verbose=False, **tokenizer_kwargs)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if limit is not None and max(lengths) > limit:
            text = texts[int(np.argmax(lengths))]
            raise ValueError(f"{_shortened(text)} has {max(lengths)} tokens, the model has positions for {limit}")
        inputs = {name: padded(rows, padding_side) for name, rows in encoded.items() if name in known}
        check_inputs(self.model.backbone, inputs, self.model.vocab_size)
        return inputs

    def _answer_list(self, texts: list, size: int, settings) -> list:
        for index, text in enumerate(texts):
            _check_text(text, index)
        answers: list = [None] * len(texts)
        # Neighbours of one length need the least padding; the longest come first, so that memory runs out at once.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        with _progress(len(texts), self.task) as bar:
            for start in range(0, len(texts), size):
                batch = order[start : start + size]
                for index, answer in zip(batch, self.answer([texts[i] for i in batch], settings), strict=True):
                    answers[index] = answer
                bar.update(len(batch))
        return answers

    def _answer_stream(self, texts: Iterator, size: int, settings) -> Iterator:
        with _progress(None, self.task) as bar:
            for number in itertools.count():
                batch = list(itertools.islice(texts, size))
                if not batch:
                    return
                for index, text in enumerate(batch):
                    _check_text(text, number * size + index)
                yield from self.answer(batch, settings)
                bar.update(len(batch))


def padded(rows: list[list[int]], side: str) -> tf.Tensor:
    """Rows of numbers as `[batch, time]`, filled up with zeros on one side."""
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    both = zip(rows, fill, strict=True) if side == "right" else zip(fill, rows, strict=True)
    return tf.constant([[*left, *right] for left, right in both], "int32", shape=(len(rows), longest))


def _check_text(text, index: int) -> None:
    if not isinstance(text, str):
        raise TypeError(f"inputs must be a string or strings, got {type(text).__name__} at place {index}")


def _batch_size(value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"batch_size must be a whole number from 1, got {value!r}")
    return value


def _progress(total: int | None, task: str) -> tqdm:
    return tqdm(total=total, desc=task, unit=" texts", delay=SECONDS_BEFORE_PROGRESS, leave=False)


def _shortened(text: str, length: int = 40) -> str:
    return repr(text if len(text) <= length else text[:length] + "...")

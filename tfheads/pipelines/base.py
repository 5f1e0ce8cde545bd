"""What all pipelines share: inputs one by one, in lists, datasets or as a stream; batches; progress."""

import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import tensorflow as tf
import transformers
from tqdm.auto import tqdm

from tfheads.input_checks import check_inputs
from tfheads.layers.projections import Projection
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

    Attributes:
        task: the name in transformers.
        model_task: the model's task, see `tfheads.registry.TASKS`.
        needs_head: whether answers are wrong if the checkpoint lacks weights of the head.
        option_names: the options of a call.
        fields: what an input that is made of several texts names them; the columns that are taken from a dataset.
    """

    task: str
    model_task: str
    needs_head: bool = True
    option_names: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("text",)

    def __init__(
        self, model: TaskModel, tokenizer: transformers.PreTrainedTokenizerBase, batch_size: int = 8, **options
    ):
        if getattr(model, "task", None) != self.model_task:
            raise ValueError(f"model must be for {self.model_task!r} in {self.task!r}, got {type(model).__name__}")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, _batch_size(batch_size)
        self.options = self.check_options(options)

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        """Answers.

        Args:
            inputs: a string (or what else the class takes), a list of them, a dataset, or any other iterable of them.
            batch_size: how many strings go through the model at once; None takes the pipeline's.
            options: see the class.

        Returns:
            The answer for a string, a list of answers for a list, an iterator over answers for anything else; the
            iterator reads its input as it goes.

        Raises:
            TypeError: the input is not made of strings.
            ValueError: an empty list, a string that cannot be answered, or an option that is not known.
        """
        size = self.batch_size if batch_size is None else _batch_size(batch_size)
        settings = self.settings(self.with_defaults(self.check_options(options)))
        if isinstance(inputs, (str, bytes, Mapping)) or not _is_iterable(inputs):
            return self.answers([self.example(inputs)], settings, size)[0]
        if isinstance(inputs, (list, tuple)):
            return self._answer_list(list(inputs), size, settings)
        return self._answer_stream(self._rows_of(inputs), _length_of(inputs), size, settings)

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

    def with_defaults(self, options: Mapping) -> dict:
        """The options of a call, and those of the pipeline where the call has none."""
        return {**self.options, **options}

    def settings(self, options: dict):
        """The options of a call, checked and completed, in the form that `answer` wants."""
        return options

    @classmethod
    def files(cls, name_or_path: str, **source) -> dict:
        """More arguments of the class, from the files beside a model.

        Args:
            name_or_path: a directory, or the id of a repository on the Hub.
            source: `revision` and `token`.
        """
        return {}

    def example(self, value, place: str = ""):
        """An input in the form that `answer` wants.

        Args:
            value: the caller's.
            place: where it stands in a list, for the error.

        Raises:
            TypeError: it is no text.
            ValueError: a text of it is missing.
        """
        return text_of(value, f"inputs must be a string or strings, got {type(value).__name__}{place}")

    def size_of(self, example) -> int:
        """About how long an input is, in characters."""
        return len(example)

    def answers(self, examples: list, settings, size: int) -> list:
        """The answers for one batch; what `answer` gives, unless a class says otherwise."""
        return self.answer(examples, settings)

    def answer(self, examples: list, settings) -> list:
        """The answers for one batch."""
        raise NotImplementedError

    def encode(self, texts: list[str], padding_side: str = "right", **tokenizer_kwargs) -> dict[str, tf.Tensor]:
        """The model's inputs `[batch, time]`, padded to the longest string.

        Raises:
            ValueError: a string has more tokens than the model has positions.
        """
        encoded = self.tokenizer(
            texts, return_attention_mask=True, verbose=False, **self._within_positions(tokenizer_kwargs)
        )
        for text, ids in zip(texts, encoded["input_ids"], strict=True):
            self._check_length(text, ids)
        known = self.model.backbone.input_names
        fill = self.fill_values()
        inputs = {
            name: padded(rows, padding_side, fill.get(name, 0)) for name, rows in encoded.items() if name in known
        }
        check_inputs(self.model.backbone, inputs, self.model.vocab_size)
        return inputs

    def fill_values(self) -> dict[str, int]:
        """What rows are filled up with by name of the input; see `fill_values`."""
        return fill_values(self.model, self.tokenizer)

    def _within_positions(self, tokenizer_kwargs: dict) -> dict:
        """The tokenizer's options, with the model's limit where it shall cut and nothing says how long."""
        limit = self.model.backbone.length_limit
        if tokenizer_kwargs.get("truncation") and tokenizer_kwargs.get("max_length") is None and limit is not None:
            return {**tokenizer_kwargs, "max_length": min(limit, self.tokenizer.model_max_length)}
        return tokenizer_kwargs

    def _check_length(self, text: str, ids: list[int]) -> None:
        limit = self.model.backbone.length_limit
        if limit is not None and len(ids) > limit:
            raise ValueError(f"{shortened(text)} has {len(ids)} tokens, the model has positions for {limit}")
        if not ids:
            raise ValueError(f"inputs must not be empty: the tokenizer makes no tokens of {shortened(text)}")

    def _answer_list(self, values: list, size: int, settings) -> list:
        if not values:
            raise ValueError("inputs must hold at least one text, got an empty list")
        examples = [self.example(value, f" at place {index}") for index, value in enumerate(values)]
        answers: list = [None] * len(examples)
        # Neighbours of one length need the least padding; the longest come first, so that memory runs out at once.
        order = sorted(range(len(examples)), key=lambda index: -self.size_of(examples[index]))
        with _progress(len(examples), self.task) as bar:
            for start in range(0, len(examples), size):
                batch = order[start : start + size]
                found = self.answers([examples[index] for index in batch], settings, size)
                for index, answer in zip(batch, found, strict=True):
                    answers[index] = answer
                bar.update(len(batch))
        return answers

    def _answer_stream(self, values: Iterator, total: int | None, size: int, settings) -> Iterator:
        with _progress(total, self.task) as bar:
            for number in itertools.count():
                batch = list(itertools.islice(values, size))
                if not batch:
                    return
                places = (f" at place {number * size + index}" for index in range(len(batch)))
                examples = [self.example(value, place) for value, place in zip(batch, places, strict=False)]
                yield from self.answers(examples, settings, size)
                bar.update(len(batch))

    def _rows_of(self, inputs) -> Iterator:
        """The inputs in anything that is no list; of a dataset's rows what the task reads.

        Raises:
            ValueError: a dataset has no such column.
        """
        columns = getattr(inputs, "column_names", None)
        if columns is None:
            # Datasets that only know how many rows they have, as PyTorch's, are read by number.
            return iter(inputs) if hasattr(inputs, "__iter__") else (inputs[index] for index in range(len(inputs)))
        own = [name for name in self.fields if name in columns]
        if self.fields[0] not in own:
            raise ValueError(f"inputs must have a column {self.fields[0]!r}, got {', '.join(columns)}")
        rows = ({name: row[name] for name in own} for row in inputs)
        return rows if len(self.fields) > 1 else (row[self.fields[0]] for row in rows)


def fill_values(model: TaskModel, tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    """What rows are filled up with by name of the input, where that is not 0; a head may look for it."""
    pad = getattr(model.config, "pad_token_id", None)
    pad = tokenizer.pad_token_id if pad is None else pad
    known = pad is not None and 0 <= pad < model.vocab_size
    return {"input_ids": pad if known else 0, "token_type_ids": tokenizer.pad_token_type_id}


def once_traced(function: Callable) -> Callable:
    """A function of a dictionary of tensors as a graph that is made once for all shapes."""
    graphs: dict = {}

    def run(inputs: Mapping):
        specifications = {name: tf.TensorSpec([None] * value.shape.rank, value.dtype) for name, value in inputs.items()}
        shapes = tuple(sorted((name, value.shape.rank, value.dtype.name) for name, value in specifications.items()))
        key = shapes, Projection.attachments
        if key not in graphs:
            graphs[key] = tf.function(function, input_signature=[specifications], autograph=False)
        return graphs[key](dict(inputs))

    return run


def text_of(value, message: str) -> str:
    """A string, also one that a tf.data.Dataset gives as a tensor or as bytes.

    Raises:
        TypeError: `message`; it is something else.
    """
    if isinstance(value, tf.Tensor) and value.dtype == tf.string and value.shape.rank == 0:
        value = value.numpy()
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str):
        raise TypeError(message)
    return value


def padded(rows: list[list[int]], side: str, value: int = 0) -> tf.Tensor:
    """Rows of numbers as `[batch, time]`, filled up on one side."""
    longest = max(map(len, rows))
    fill = [[value] * (longest - len(row)) for row in rows]
    both = zip(rows, fill, strict=True) if side == "right" else zip(fill, rows, strict=True)
    return tf.constant([[*left, *right] for left, right in both], "int32", shape=(len(rows), longest))


def whole_number_option(name: str, value, least: int = 1) -> int:
    """An option that must be a whole number.

    Raises:
        ValueError: it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")
    return value


def _is_iterable(value) -> bool:
    sized = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return not isinstance(value, tf.Tensor) and (isinstance(value, Iterable) or sized)


def _length_of(value) -> int | None:
    """How many rows there are, if that is known."""
    try:
        return len(value)
    except TypeError:
        return None


def _batch_size(value: int) -> int:
    return whole_number_option("batch_size", value)


def _progress(total: int | None, task: str) -> tqdm:
    return tqdm(total=total, desc=task, unit=" texts", delay=SECONDS_BEFORE_PROGRESS, leave=False)


def shortened(text: str, length: int = 40) -> str:
    """The beginning of a text, quoted, for an error."""
    return repr(text if len(text) <= length else text[:length] + "...")

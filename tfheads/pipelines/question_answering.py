"""The question-answering pipeline, which transformers 5 no longer has."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfheads.data.question_answering import (
    check_pair,
    check_tokenizer,
    context_of_row,
    context_rooms,
    question_is_first,
    question_windows,
)
from tfheads.pipelines.base import text_of, whole_number_option
from tfheads.pipelines.rows import RowsPipeline, softmax

DEFAULT_LENGTH, DEFAULT_STRIDE = 384, 128
MASKED = np.float32(-10000.0)
PADDINGS = (None, False, True, "do_not_pad", "longest", "max_length")


class Question(NamedTuple):
    """A question and the text in which its answer stands."""

    question: str
    context: str


class QuestionAnsweringSettings(NamedTuple):
    """The options of a call, checked; see `QuestionAnsweringPipeline`."""

    top_k: int
    max_length: int
    doc_stride: int | None
    max_question_len: int | None
    max_answer_len: int
    handle_impossible_answer: bool
    align_to_words: bool


class Window(NamedTuple):
    """A row of a question: the model's inputs, the tokens that may be answers, the tokenizer's own record."""

    inputs: dict[str, list[int]]
    allowed: np.ndarray
    encoding: object


class QuestionAnsweringPipeline(RowsPipeline):
    """Answers that stand in a text.

    Called with `question=..., context=...` (strings, lists of both, or several questions for one context), with a
    dictionary of both, with a list, a dataset or an iterator of such dictionaries. An answer is
    `{"score", "start", "end", "answer"}`: `start` and `end` are characters, `context[start:end]` is the answer. With
    `top_k` above 1 it is a list, best first. As in transformers, a list of one question gives that question's answer.

    A context that is too long goes through the model in windows that overlap; the score is the probability in the
    window, and equal answers (but for upper case) of several windows add up. Spans and scores are those of
    transformers 4.57. Only where the tokenizer pads on the left, which puts the context before the question, are
    spans that lie in the question left out, which it takes for parts of the context.

    Options:
        top_k: how many answers; default 1. There are fewer if the context has no more.
        max_seq_len: the most tokens of a window with question and special tokens; default 384, or less where the
            tokenizer or the model takes less.
        doc_stride: how many tokens of the context windows share; default 128, or half of a shorter window.
        max_question_len: the question is cut after so many tokens; default None, which leaves it whole.
        max_answer_len: the most tokens of an answer; default 15.
        handle_impossible_answer: whether "no answer", the empty string, is one of the answers; default False.
        align_to_words: whether answers begin and end with whole words; default True.
        padding: has no effect on the answers.
    """

    task, model_task = "question-answering", "question-answering"
    option_names = (
        "top_k",
        "max_seq_len",
        "doc_stride",
        "max_question_len",
        "max_answer_len",
        "handle_impossible_answer",
        "align_to_words",
        "padding",
    )
    fields = ("question", "context")
    outputs = ("start_logits", "end_logits")

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        check_tokenizer(tokenizer)
        self.settings(self.options)

    def __call__(self, *inputs, question=None, context=None, batch_size: int | None = None, **options):
        """Answers.

        Args:
            inputs: see the class; two strings are question and context.
            question: a string or a list of strings.
            context: likewise, as many, or one for all questions.
            batch_size: how many windows go through the model at once; None takes the pipeline's.
            options: see the class.

        Raises:
            TypeError: a question or a context that is no string.
            ValueError: an empty one, an option that is not known or out of range.
        """
        inputs = _given(inputs, question, context)
        answers = super().__call__(inputs, batch_size=batch_size, **options)
        return answers[0] if isinstance(inputs, list) and len(inputs) == 1 else answers

    def settings(self, options: dict) -> QuestionAnsweringSettings:
        options = {name: value for name, value in options.items() if value is not None}
        limits = (self.model.backbone.length_limit, self.tokenizer.model_max_length)
        most = min(limit for limit in (*limits, int(1e9)) if limit is not None)
        length = whole_number_option("max_seq_len", options.get("max_seq_len", min(DEFAULT_LENGTH, most)))
        if length > most:
            raise ValueError(f"max_seq_len must be at most {most}, what the model and its tokenizer take, got {length}")
        stride = options.get("doc_stride")
        if stride is not None and whole_number_option("doc_stride", stride, 0) >= length:
            raise ValueError(f"doc_stride must be below max_seq_len, {length}, got {stride}")
        question = options.get("max_question_len")
        if question is not None:
            whole_number_option("max_question_len", question)
        if options.get("padding") not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(map(repr, PADDINGS))}, got {options['padding']!r}")
        return QuestionAnsweringSettings(
            whole_number_option("top_k", options.get("top_k", 1)),
            length,
            stride,
            question,
            whole_number_option("max_answer_len", options.get("max_answer_len", 15)),
            _boolean("handle_impossible_answer", options.get("handle_impossible_answer", False)),
            _boolean("align_to_words", options.get("align_to_words", True)),
        )

    def example(self, value, place: str = "") -> Question:
        if not isinstance(value, Mapping):
            raise TypeError(
                "inputs must be question=... and context=..., or dictionaries of both, "
                f"got {type(value).__name__}{place}"
            )
        missing = next((name for name in self.fields if name not in value), None)
        if missing is not None:
            given = ", ".join(map(repr, value)) or "nothing"
            raise ValueError(f"inputs must be dictionaries of 'question' and 'context', got {given}{place}")
        found = Question(
            *(
                text_of(value[name], f"{name} must be a string, got {type(value[name]).__name__}{place}")
                for name in self.fields
            )
        )
        check_pair(*found)
        return found

    def answers(self, examples: list[Question], settings: QuestionAnsweringSettings, size: int) -> list:
        windows = [self.windows(example, settings) for example in examples]
        found = iter(self.run([window.inputs for own in windows for window in own], size))
        return [
            self.finish(example, own, [next(found) for _ in own], settings)
            for example, own in zip(examples, windows, strict=True)
        ]

    def windows(self, example: Question, settings: QuestionAnsweringSettings) -> list[Window]:
        """The rows of a question.

        Raises:
            ValueError: the question leaves no room for its context, the windows cannot overlap by so much, or the
                tokenizer makes nothing of the context.
        """
        stride = settings.doc_stride
        if stride is None:
            question = min(settings.max_question_len or settings.max_length, settings.max_length)
            (room,) = context_rooms(self.tokenizer, [example.question], settings.max_length)
            room = max(room, settings.max_length - question - self.tokenizer.num_special_tokens_to_add(pair=True))
            stride = min(settings.max_length // 2, DEFAULT_STRIDE)
            stride = stride if stride < room else max(0, room // 2)
        encoded = question_windows(
            self.tokenizer,
            [example.question],
            [example.context],
            max_length=settings.max_length,
            doc_stride=stride,
            max_question_length=settings.max_question_len,
        )
        windows, known = [], self.model.backbone.input_names
        for row, encoding in enumerate(encoded.encodings):
            inputs = {name: encoded[name][row] for name in encoded if name in known}
            context = context_of_row(encoded, row, self.tokenizer)
            if not context.any():
                raise ValueError(f"context must have text, the tokenizer makes no tokens of {example.context[:40]!r}")
            # Models point at the class token where there is no answer.
            is_class = np.array(inputs["input_ids"]) == self.tokenizer.cls_token_id
            windows.append(Window(inputs, context | is_class, encoding))
        return windows

    def finish(
        self,
        example: Question,
        rows: list[Window],
        outputs: list[dict[str, np.ndarray]],
        settings: QuestionAnsweringSettings,
    ):
        answers, null_score = {}, 1_000_000.0
        for window, output in zip(rows, outputs, strict=True):
            start, end = (self._probabilities(window, output[name]) for name in self.outputs)
            null_score = min(null_score, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            # Words grow together, so that more spans are needed for as many answers.
            count = settings.top_k * 2 + 10 if settings.align_to_words else settings.top_k
            for first, last, score in best_spans(start, end, window.allowed, count, settings.max_answer_len):
                begin, stop = self._characters(window, first, last, settings.align_to_words)
                text = example.context[begin:stop]
                known = answers.setdefault(text.lower(), {"score": 0.0, "start": begin, "end": stop, "answer": text})
                known["score"] += score
        found = list(answers.values())
        if settings.handle_impossible_answer:
            found.append({"score": null_score, "start": 0, "end": 0, "answer": ""})
        found = sorted(found, key=lambda answer: -answer["score"])[: settings.top_k]
        return found[0] if len(found) == 1 else found

    def _probabilities(self, window: Window, logits: np.ndarray) -> np.ndarray:
        """Over the tokens of a row, those that may be answers."""
        logits = logits[: len(window.allowed)]
        if question_is_first(self.tokenizer):
            return softmax(np.where(window.allowed, logits, MASKED))
        # transformers divides by all tokens here; what it would answer from the question is not an answer.
        return np.where(window.allowed, softmax(logits), np.float32(0.0))

    def _characters(self, window: Window, first: int, last: int, align_to_words: bool) -> tuple[int, int]:
        """Where a span of tokens begins and ends in the context."""
        encoding = window.encoding
        if align_to_words:
            words = encoding.token_to_word(first), encoding.token_to_word(last)
            context = 1 if question_is_first(self.tokenizer) else 0
            spans = [None if word is None else encoding.word_to_chars(word, context) for word in words]
            if None not in spans:
                return spans[0][0], spans[1][1]
        return encoding.offsets[first][0], encoding.offsets[last][1]


def best_spans(
    start: np.ndarray, end: np.ndarray, allowed: np.ndarray, count: int, max_length: int
) -> list[tuple[int, int, float]]:
    """The most probable spans of tokens, as (first, last, score), best first.

    Args:
        start, end: probabilities `[time]`.
        allowed: which tokens may begin and end a span, booleans `[time]`.
        count: how many are looked at; those among them that are not allowed are left out.
        max_length: the most tokens of a span.
    """
    scores = np.tril(np.triu(np.outer(start, end)), max_length - 1).ravel()
    if count == 1:
        order = np.array([scores.argmax()])
    elif len(scores) <= count:
        order = np.argsort(-scores)
    else:
        order = np.argpartition(-scores, count)[:count]
        order = order[np.argsort(-scores[order])]
    firsts, lasts = np.unravel_index(order, (len(start), len(end)))
    return [
        (int(first), int(last), float(scores[place]))
        for place, first, last in zip(order, firsts, lasts, strict=True)
        if allowed[first] and allowed[last]
    ]


def _given(inputs: tuple, question, context):
    """The forms of a call as one: a list of dictionaries, or what is passed on as it is."""
    if inputs:
        if question is not None or context is not None:
            raise ValueError("question and context must not be given beside other inputs")
        if len(inputs) == 2 and all(isinstance(value, str) for value in inputs):
            return [{"question": inputs[0], "context": inputs[1]}]
        given = inputs[0] if len(inputs) == 1 else list(inputs)
        return list(given) if isinstance(given, tuple) else given
    for name, value in (("question", question), ("context", context)):
        if value is None:
            raise ValueError(f"{name} is needed, a string or a list of strings, got None")
        if not isinstance(value, (str, list, tuple)):
            raise TypeError(f"{name} must be a string or a list of strings, got {type(value).__name__}")
    if isinstance(question, str):
        if not isinstance(context, str):
            raise TypeError(f"context must be a string for a question that is a string, got {type(context).__name__}")
        return [{"question": question, "context": context}]
    contexts = [context] * len(question) if isinstance(context, str) else context
    if len(contexts) != len(question):
        raise ValueError(f"context must be as many strings as question, {len(question)}, got {len(contexts)}")
    return [{"question": one, "context": other} for one, other in zip(question, contexts, strict=True)]


def _boolean(name: str, value) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)

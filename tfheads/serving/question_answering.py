"""Signatures of question answering: a question and a context in, the answer that stands in the context out."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfheads.data.question_answering import question_is_first
from tfheads.models import TaskModel
from tfheads.pipelines.question_answering import DEFAULT_STRIDE, MASKED, QuestionAnsweringPipeline
from tfheads.preprocessing import GraphTokenizer, code_points
from tfheads.preprocessing.encoding import Encoding
from tfheads.serving.runs import changes, runs_from
from tfheads.serving.text import TextBundle, as_many, is_blank
from tfheads.serving.token_level import EXAMPLE_TEXT, text_input, traced, valid_text

FAR = -1e30


class Answers(NamedTuple):
    """Candidates, one behind another; all `[candidates]`.

    Attributes:
        row: the question.
        start, end: characters of the context.
        text: what stands there.
        score: the probability.
    """

    row: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    text: tf.Tensor
    score: tf.Tensor


class QuestionAnsweringBundle(TextBundle):
    """A model that answers questions, with its tokenizer, the windows of long contexts and the choice among them.

    Args:
        model: a question-answering model.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: see `Served.export_serving`.

    Raises:
        ValueError: an option that the pipeline does not take.
    """

    compares_offsets = True
    option_names = (
        "max_seq_len",
        "doc_stride",
        "max_question_len",
        "max_answer_len",
        "handle_impossible_answer",
        "align_to_words",
    )

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        given = {name: options[name] for name in self.option_names if options.get(name) is not None}
        pipeline = QuestionAnsweringPipeline(model, tokenizer, **given)
        self.asked = pipeline.settings(pipeline.options)
        stride = self.asked.doc_stride
        self.stride = min(self.asked.max_length // 2, DEFAULT_STRIDE) if stride is None else stride
        self.room = self.asked.max_length - tokenizer.num_special_tokens_to_add(pair=True)
        self.question_is_first = question_is_first(tokenizer)
        self.class_id = -1 if tokenizer.cls_token_id is None else tokenizer.cls_token_id
        self.pointer = self.outputs_of_rows("start_logits", "end_logits", per_token=True)

    def signatures(self) -> dict[str, Callable]:
        inputs = {name: text_input(name) for name in ("question", "context")}
        return {"serving_default": traced(self._answered, **inputs), **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        example = {"question": ["Where is the cat?"], "context": [EXAMPLE_TEXT]}
        return {"serving_default": [example], **self.token_level_examples()}

    def _answered(self, question: tf.Tensor, context: tf.Tensor) -> dict[str, tf.Tensor]:
        question, context = as_many(valid_text(question), valid_text(context), "question and context")
        question, room = self._cut(question)
        can_be = (room > 0) & ~is_blank(question) & ~is_blank(context)
        known = tf.where(can_be)[:, 0]
        answer = self._answers(*(tf.gather(values, known) for values in (question, context, room)))
        place = tf.where(can_be, tf.cumsum(tf.cast(can_be, tf.int32)), 0)  # the others get "" and 0
        return {
            name: tf.gather(tf.concat([tf.zeros([1], value.dtype), value], 0), place) for name, value in answer.items()
        }

    def _answers(self, question: tf.Tensor, context: tf.Tensor, room: tf.Tensor) -> dict[str, tf.Tensor]:
        """The answers to questions that leave room for their contexts."""
        encoding = self._windows(question, context, room)
        start, end, allowed = self._probabilities(encoding)
        count = tf.size(question)
        first = tf.reduce_sum(start[:, :1] * end[:, :1], axis=1)  # there may be no token at all
        null = tf.math.unsorted_segment_min(first, encoding.rows, count)
        start, end = (tf.where(tf.range(tf.shape(values)[1]) > 0, values, 0.0) for values in (start, end))
        answer = best_of_each(self._candidates(encoding, context, start, end, allowed), count)
        if not self.asked.handle_impossible_answer:
            return answer
        is_null = null > answer["score"]
        answer = {name: tf.where(is_null, tf.zeros([], value.dtype), value) for name, value in answer.items()}
        return {**answer, "score": tf.where(is_null, null, answer["score"])}

    def _cut(self, question: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The questions, cut to the tokens that they may have, and the tokens that they leave for a context."""
        most = self.asked.max_question_len
        if most is None:
            lengths = self.graph.tokenize(question, add_special_tokens=False).row_lengths()
            return question, self.room - tf.cast(lengths, tf.int32)
        encoding = self.graph.encode(question, add_special_tokens=False)
        lengths = tf.cast(encoding.ends.row_lengths(), tf.int32)
        last = tf.gather(encoding.ends.values, tf.cast(encoding.ends.row_starts()[lengths > most], tf.int32) + most - 1)
        rows = tf.where(lengths > most)
        cut = tf.strings.substr(tf.gather(question, rows[:, 0]), tf.zeros_like(last), last, unit="UTF8_CHAR")
        return tf.tensor_scatter_nd_update(question, rows, cut), self.room - tf.minimum(lengths, most)

    def _windows(self, question: tf.Tensor, context: tf.Tensor, room: tf.Tensor) -> Encoding:
        """The rows of the questions, as many for each as its context needs."""
        first, second = (question, context) if self.question_is_first else (context, question)
        return self.graph.encode(
            first,
            second,
            max_length=self.asked.max_length,
            truncation="only_second" if self.question_is_first else "only_first",
            stride=tf.where(room > self.stride, self.stride, room // 2),
        )

    def _probabilities(self, encoding: Encoding) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of the start and the end, and which tokens may be answers; all `[windows, longest]`."""
        context = 1 if self.question_is_first else 0
        # Models point at the class token where there is no answer.
        allowed = (encoding.sequence_ids == context) | (encoding.input_ids == self.class_id)
        logits = self.pointer(self.inputs_of(encoding))
        dense = allowed.to_tensor(False)
        found = []
        for name in ("start_logits", "end_logits"):
            values = logits[name]
            if self.question_is_first:
                values = tf.where(allowed.values, values, MASKED)
            values = tf.nn.softmax(allowed.with_values(values).to_tensor(FAR))
            found.append(values if self.question_is_first else tf.where(dense, values, 0.0))
        return found[0], found[1], dense

    def _candidates(self, encoding: Encoding, context, start, end, allowed) -> Answers:
        """The best spans of all windows, best first."""
        time = tf.shape(start)[1]
        width = tf.minimum(self.asked.max_answer_len, time)
        places = tf.range(time)[:, None] + tf.range(width)[None, :]  # the last token by the first one and the length
        scores = start[:, :, None] * tf.gather(tf.pad(end, [[0, 0], [0, width]]), places, axis=1)
        scores = tf.reshape(scores, [tf.shape(start)[0], time * width])
        # Words grow together, so that more spans are needed for one answer.
        count = tf.minimum(12 if self.asked.align_to_words else 1, time * width)
        scores, best = tf.math.top_k(scores, count)
        first = best // tf.maximum(width, 1)
        last = tf.minimum(first + best % tf.maximum(width, 1), time - 1)
        fits = tf.gather(allowed, first, batch_dims=1) & tf.gather(allowed, last, batch_dims=1) & (scores > 0)
        window = tf.cast(tf.where(fits)[:, 0], tf.int32)
        first, last, scores = (tf.boolean_mask(values, fits) for values in (first, last, scores))
        row = tf.gather(encoding.rows, window)
        begin, stop = self._characters(encoding, window, first, last)
        text = code_points.substrings(code_points.decode(context), row, begin, stop)
        return Answers(row, begin, stop, text, scores)

    def _characters(self, encoding: Encoding, window, first, last) -> tuple[tf.Tensor, tf.Tensor]:
        """Where spans of tokens begin and end in the context."""
        begin = tf.cast(tf.gather(encoding.starts.row_starts(), window), tf.int32)
        first, last = begin + first, begin + last
        starts, ends, words = encoding.starts.values, encoding.ends.values, encoding.word_ids.values
        if not self.asked.align_to_words:
            return tf.gather(starts, first), tf.gather(ends, last)
        of_window = tf.cast(encoding.starts.value_rowids(), tf.int32)
        runs = runs_from(changes(words) | changes(encoding.sequence_ids.values) | changes(of_window))
        in_words = (tf.gather(words, first) >= 0) & (tf.gather(words, last) >= 0)
        first = tf.where(in_words, tf.gather(runs.first, tf.gather(runs.ids, first)), first)
        last = tf.where(in_words, tf.gather(runs.last, tf.gather(runs.ids, last)), last)
        return tf.gather(starts, first), tf.gather(ends, last)


def best_of_each(found: Answers, count: tf.Tensor) -> dict[str, tf.Tensor]:
    """The best answer of each row `[count]`; equal ones (but for upper case) add up, as in the pipeline.

    Args:
        found: of all rows, those of one row in the order of its windows.
        count: how many rows there are.
    """
    keys = tf.strings.join([tf.strings.as_string(found.row), tf.strings.lower(found.text, encoding="utf-8")], " ")
    unique, number = tf.unique(keys)
    score = tf.math.unsorted_segment_sum(found.score, number, tf.size(unique))
    first = tf.math.unsorted_segment_min(tf.range(tf.size(keys)), number, tf.size(unique))
    row = tf.gather(found.row, first)
    best = tf.gather(tf.math.unsorted_segment_max(score, row, count), row)
    rank = tf.range(tf.size(unique))
    chosen = tf.math.unsorted_segment_min(tf.where(score == best, rank, tf.size(rank)), row, count)
    has = chosen < tf.size(rank)  # not so for rows without a candidate
    chosen = tf.where(has, chosen, tf.size(rank))
    values = {"answer": found.text, "start": found.start, "end": found.end}
    values = {name: tf.gather(value, first) for name, value in values.items()} | {"score": score}
    return {
        name: tf.gather(tf.concat([value, tf.zeros([1], value.dtype)], 0), chosen) for name, value in values.items()
    }

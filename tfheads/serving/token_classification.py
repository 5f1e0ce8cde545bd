"""Signatures of token classifiers: text in, the entities that stand in it out."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.pipelines.token_classification import TokenClassificationPipeline
from tfheads.preprocessing import GraphTokenizer, code_points
from tfheads.preprocessing.token_strings import TokenStrings
from tfheads.serving.entities import STRATEGIES, Entities, Labels, Spans, without_overlaps
from tfheads.serving.runs import changes, padded_by_row
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import EXAMPLE_TEXT, text_input, traced, valid_text

SPACE = ord(" ")


class TokenClassificationBundle(TextBundle):
    """A classifier of tokens with its tokenizer, and the way from tokens to entities.

    Args:
        model: a token classifier.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: see `Served.export_serving`.

    Raises:
        TypeError, ValueError: an option that the pipeline does not take, or the tokenizer's decoder is not exact in the
            graph.
    """

    compares_offsets = True
    option_names = ("aggregation_strategy", "ignore_labels", "stride")

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        given = {name: options[name] for name in self.option_names if options.get(name) is not None}
        pipeline = TokenClassificationPipeline(model, tokenizer, **{"aggregation_strategy": "simple", **given})
        asked = pipeline.settings(pipeline.options)
        self.stride = None if self.row_length is None else asked.stride
        self.entities = STRATEGIES[asked.aggregation_strategy]
        self.labels = Labels(model.config, asked.ignore_labels, whole=asked.aggregation_strategy == "none")
        self.token_strings = TokenStrings(tokenizer, graph.decoder)
        self.unknown_id = -1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id
        backend = tokenizer.backend_tokenizer.model
        self.marks_pieces = bool(getattr(backend, "continuing_subword_prefix", None))
        self.classifier = self.outputs_of_rows("logits", per_token=True)

    def signatures(self) -> dict[str, Callable]:
        return {"serving_default": traced(self._found, text=text_input()), **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        return {"serving_default": [{"text": [EXAMPLE_TEXT]}], **self.token_level_examples()}

    def _found(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        spans, windows = self._tokens(valid_text(text))
        entities = self.entities(spans, self.labels, self.token_strings)
        kept = ~tf.gather(self.labels.ignored, entities.label)
        if self.stride is None:
            entities = Entities(*(tf.boolean_mask(values, kept) for values in entities))
        else:
            entities = without_overlaps(entities, kept, tf.gather(windows, entities.row) > 1)
        answer = {name: getattr(entities, name) for name in ("word", "start", "end", "score")}
        answer["label"] = tf.gather(self.labels.names, entities.label)
        return padded_by_row(answer, entities.row, tf.size(text))

    def _tokens(self, text: tf.Tensor) -> tuple[Spans, tf.Tensor]:
        """The tokens of the texts that are not special, and how many windows with tokens each text has `[batch]`."""
        encoding = self.graph.encode(text, max_length=self.row_length, stride=self.stride)
        logits = self.classifier(self.inputs_of(encoding))["logits"]
        real = encoding.sequence_ids.values >= 0
        ids, start, end, window, scores = (
            tf.boolean_mask(values, real)
            for values in (
                encoding.input_ids.values,
                encoding.starts.values,
                encoding.ends.values,
                tf.cast(encoding.input_ids.value_rowids(), tf.int32),
                tf.nn.softmax(logits),
            )
        )
        row = tf.gather(encoding.rows, window)
        points = code_points.decode(text)
        source = code_points.substrings(points, row, start, end)
        unknown = ids == self.unknown_id
        string = tf.where(unknown, source, tf.gather(self.graph.id_to_token, ids))
        pieces = self.token_strings.of_strings(source).where(unknown, self.token_strings.of_ids(ids))
        goes_on = self._goes_on(points, ids, row, start, end) & ~unknown
        real_windows = tf.boolean_mask(row, changes(window))
        windows = tf.math.bincount(real_windows, minlength=tf.size(text), maxlength=tf.size(text))
        return Spans(row, window, start, end, string, pieces, scores, goes_on), windows

    def _goes_on(self, points, ids, row, start, end) -> tf.Tensor:
        """Which tokens belong to the word before them, as the pipeline sees it `[tokens]`."""
        if self.marks_pieces:
            return tf.strings.length(tf.gather(self.graph.id_to_token, ids), unit="UTF8_CHAR") != end - start
        lengths = tf.cast(tf.gather(points.row_lengths(), row), tf.int32)
        begin = tf.cast(tf.gather(points.row_starts(), row), tf.int32)
        values = tf.concat([points.values, [0]], 0)

        def is_space(place):
            inside = (place >= 0) & (place < lengths)
            return tf.gather(values, tf.where(inside, begin + place, tf.size(values) - 1)) == SPACE

        return (start > 0) & ~is_space(start - 1) & ~is_space(start)

"""From tokens with probabilities of labels to entities, inside the graph, as the pipeline of token classification does.

See `tfheads.pipelines.token_classification` for what the strategies mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import transformers

from tfheads.pipelines.token_classification import label_parts
from tfheads.preprocessing.token_strings import Pieces, TokenStrings
from tfheads.serving.runs import Runs, changes, runs_from


class Spans(NamedTuple):
    """Tokens or words, one behind another.

    Attributes:
        row, window: the text and the window that each belongs to `[spans]`.
        start, end: characters of the text `[spans]`.
        string: the token itself `[spans]`.
        pieces: what it stands for.
        scores: probabilities of the labels `[spans, labels]`.
        goes_on: whether it belongs to the word before it `[spans]`.
    """

    row: tf.Tensor
    window: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    string: tf.Tensor
    pieces: Pieces
    scores: tf.Tensor
    goes_on: tf.Tensor


class Entities(NamedTuple):
    """What was found, in the order of the texts; all `[entities]`, `label` a number."""

    row: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    word: tf.Tensor
    label: tf.Tensor
    score: tf.Tensor


class Labels:
    """What the names of labels say.

    Attributes:
        names: what an entity of each label is called.
        begins: whether the label begins an entity.
        kinds: the kind of entity, as a number.
        ignored: whether entities of the label are left out.

    Args:
        config: names the labels.
        ignored: names to leave out.
        whole: whether entities are called by the whole name of the label, without grouping.
    """

    def __init__(self, config: transformers.PreTrainedConfig, ignored: tuple[str, ...], whole: bool):
        names = [config.id2label[index] for index in range(len(config.id2label))]
        parts = [label_parts(name) for name in names]
        self.names = names if whole else [name.split("-", 1)[-1] for name in names]
        self.begins = [begins for begins, _ in parts]
        kinds = list(dict.fromkeys(kind for _, kind in parts))
        self.kinds = [kinds.index(kind) for _, kind in parts]
        self.ignored = [name in ignored for name in self.names]


def each_token(spans: Spans, labels: Labels, strings: TokenStrings) -> Entities:
    """Strategy "none"."""
    label, score = _best(spans.scores)
    return Entities(spans.row, spans.start, spans.end, spans.string, label, score)


def grouped(spans: Spans, labels: Labels, strings: TokenStrings) -> Entities:
    """Strategy "simple": neighbours of one kind, also of words."""
    label, score = _best(spans.scores)
    begins = tf.gather(labels.begins, label) | changes(tf.gather(labels.kinds, label)) | changes(spans.window)
    runs = runs_from(begins)
    return Entities(
        tf.gather(spans.row, runs.first),
        tf.gather(spans.start, runs.first),
        tf.gather(spans.end, runs.last),
        strings.joined(spans.pieces, runs.ids, runs.count),
        tf.gather(label, runs.first),
        tf.math.segment_mean(score, runs.ids),
    )


def by_words(scores_of: Callable[[tf.Tensor, Runs], tf.Tensor]) -> Callable:
    """A strategy that gives all pieces of a word one label, by scores `[words, labels]` of those of its pieces."""

    def entities(spans: Spans, labels: Labels, strings: TokenStrings) -> Entities:
        runs = runs_from(~spans.goes_on | changes(spans.window))
        word = strings.joined(spans.pieces, runs.ids, runs.count)
        words = Spans(
            tf.gather(spans.row, runs.first),
            tf.gather(spans.window, runs.first),
            tf.gather(spans.start, runs.first),
            tf.gather(spans.end, runs.last),
            word,
            strings.of_strings(word),
            scores_of(spans.scores, runs),
            tf.zeros_like(runs.first, tf.bool),
        )
        return grouped(words, labels, strings)

    return entities


def _surest(scores: tf.Tensor, runs: Runs) -> tf.Tensor:
    """The scores of each word's piece that has the highest one, of equal ones the first."""
    score = tf.reduce_max(scores, axis=-1)
    best = tf.equal(score, tf.gather(tf.math.segment_max(score, runs.ids), runs.ids))
    place = tf.where(best, tf.range(tf.size(score)), tf.size(score))
    return tf.gather(scores, tf.math.segment_min(place, runs.ids))


def _best(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.argmax(scores, axis=-1, output_type=tf.int32), tf.reduce_max(scores, axis=-1)


STRATEGIES = {
    "none": each_token,
    "simple": grouped,
    "first": by_words(lambda scores, runs: tf.gather(scores, runs.first)),
    "average": by_words(lambda scores, runs: tf.math.segment_mean(scores, runs.ids)),
    "max": by_words(_surest),
}


def without_overlaps(entities: Entities, kept: tf.Tensor, joined: tf.Tensor) -> Entities:
    """Of entities that several windows of a text saw, the longest, or of equal length the surest; sorted by start.

    Args:
        entities: of all windows.
        kept: which of them count `[entities]`.
        joined: which of them are of a text with several windows `[entities]`; the others all stay.
    """
    entities, joined = tf.nest.map_structure(lambda values: tf.boolean_mask(values, kept), (entities, joined))
    by_start = tf.argsort(tf.where(joined, entities.start, 0), stable=True)
    order = tf.gather(by_start, tf.argsort(tf.gather(entities.row, by_start), stable=True))
    entities, joined = tf.nest.map_structure(lambda values: tf.gather(values, order), (entities, joined))
    size, fresh = tf.size(order), changes(entities.row)
    length = entities.end - entities.start

    def step(place, last, wins, replaces):
        again = joined[place] & ~fresh[place] & (entities.start[last] <= entities.start[place])
        again &= entities.start[place] < entities.end[last]
        longer = (length[place] > length[last]) | (
            (length[place] == length[last]) & (entities.score[place] > entities.score[last])
        )
        stays = ~again | longer
        wins, replaces = wins.write(place, stays), replaces.write(place, again & longer)
        return place + 1, tf.where(stays, place, last), wins, replaces

    flags = [tf.TensorArray(tf.bool, size, element_shape=[]) for _ in range(2)]
    *_, wins, replaces = tf.while_loop(lambda place, *_: place < size, step, (0, 0, *flags))
    winners = tf.where(wins.stack())[:, 0]
    replaced = tf.concat([tf.gather(replaces.stack(), winners)[1:], [False]], 0)[: tf.size(winners)]
    kept = tf.boolean_mask(winners, ~replaced)  # without those that the next one replaced
    return tf.nest.map_structure(lambda values: tf.gather(values, kept), entities)

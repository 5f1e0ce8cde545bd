"""Contrastive search: likely tokens that are unlike what was said (Su et al. 2022)."""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tfheads.generation.loop import Memory, Run
from tfheads.generation.plan import Generated, Options
from tfheads.layers.slots import write_slots


class Carry(NamedTuple):
    """Where a contrastive search stands.

    Attributes:
        logits: for the next token `[batch, vocabulary]`.
        said: unit vectors of the hidden values of all tokens so far `[batch, time + capacity, hidden]`.
    """

    step: tf.Tensor
    logits: tf.Tensor
    said: tf.Tensor
    tokens: tf.Tensor
    lengths: tf.Tensor
    ended: tf.Tensor
    memory: Memory
    kept: dict


@dataclass(frozen=True)
class Contrastive:
    """Reads the likeliest tokens one step ahead, takes the best; reference: `_contrastive_search` of transformers 4.49.

    The best has the largest (1 - alpha) * probability - alpha * (largest cosine with an earlier hidden value).

    Attributes:
        copies: how many tokens are looked at (`top_k`).
    """

    copies: int
    sample = False
    options = ("penalty_alpha",)
    revises = False

    def start(self, run: Run) -> Carry:
        """Reads the prompts."""
        hidden, logits, memory = run.begin()
        nothing = tf.zeros_like(run.prompt.lengths)
        return Carry(
            step=tf.constant(0),
            logits=self._one(logits),
            said=tf.pad(unit(hidden), [[0, 0], [0, run.capacity], [0, 0]]),
            tokens=run.padding(run.batch),
            lengths=nothing,
            ended=tf.zeros_like(nothing, tf.bool),
            memory=memory,
            kept=run.nothing_kept(run.batch, logits.shape[-1]),
        )

    def goes_on(self, carry: Carry, options: Options) -> tf.Tensor:
        """Whether a row has not ended and there is room."""
        return (carry.step < options.max_new_tokens) & ~tf.reduce_all(carry.ended)

    def advance(self, run: Run, carry: Carry) -> Carry:
        """Reads the candidates and takes one for each row."""
        step, count = carry.step, self.copies
        scores = run.processed(carry.logits, carry.memory, step, part=self._one)
        probabilities, candidates = tf.math.top_k(tf.nn.softmax(scores), count)
        hidden, memory = run.extend(tf.reshape(candidates, [-1]), step + 1, carry.memory)
        by_row = unit(tf.reshape(hidden, (run.batch, count, hidden.shape[-1])))
        alpha = run.options.values["penalty_alpha"]
        best = (1.0 - alpha) * probabilities - alpha * self._likeness(run, carry, by_row)
        place = tf.argmax(best, axis=1, output_type=tf.int32)
        row = place + count * tf.range(run.batch)
        chosen = tf.gather(candidates, place, batch_dims=1)
        ends, stop = run.ends(chosen, self._one(memory.stop) if run.plan.stop_strings else ())
        # The copies of a row differ in the slot that was just written, and in nothing else.
        state = run.reordered(memory.state, run.repeated(row), run.width + step, 1)
        memory = memory._replace(state=state, stop=run.repeated(stop) if run.plan.stop_strings else ())
        token = tf.where(carry.ended, run.options.pad_token_id, chosen)
        said = tf.gather(by_row, place, batch_dims=1)[:, None]
        return Carry(
            step=step + 1,
            logits=run.logits(tf.gather(hidden, row)),
            said=write_slots(carry.said, said, run.width + step, axis=1),
            tokens=tf.where((run.columns == step)[None, :], token[:, None], carry.tokens),
            lengths=carry.lengths + tf.cast(~carry.ended, "int32"),
            ended=carry.ended | ends,
            memory=run.followed(memory, run.repeated(chosen), step),
            kept=run.keep(carry.kept, step, scores=scores, logits=carry.logits),
        )

    def result(self, run: Run, carry: Carry) -> Generated:
        """All rows."""
        return Generated(carry.tokens, carry.lengths, carry.step, carry.kept, {})

    def _one(self, values):
        """One of the copies of each row."""
        return values[:: self.copies]

    def _likeness(self, run, carry, candidates):
        """The largest cosine of each candidate with what was said `[batch, candidates]`."""
        cosines = tf.matmul(candidates, carry.said, transpose_b=True)
        columns = tf.range(tf.shape(carry.said)[1])[None, :]
        prompt = columns < run.prompt.lengths[:, None]
        new = (columns >= run.width) & (columns < run.width + carry.step)
        return tf.reduce_max(tf.where((prompt | new)[:, None], cosines, -2.0), axis=-1)


def unit(vectors: tf.Tensor) -> tf.Tensor:
    """Vectors `[..., width]` of length one, in float32."""
    vectors = tf.cast(vectors, "float32")
    return vectors / tf.norm(vectors, axis=-1, keepdims=True)

"""Beam search, with the likeliest continuations or with drawn ones."""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tfheads.generation.loop import Memory, Run
from tfheads.generation.plan import Generated, Options
from tfheads.generation.sampling import perturbed

FAR = -1e9  # a score behind all others, and still finite
EARLY = {False: 0, True: 1, "never": 2}
"""The values of `early_stopping` as numbers, so that they can be tensors."""


class Finished(NamedTuple):
    """The best rows that ended, the best first.

    Attributes:
        tokens: `[batch, beams, capacity]`.
        scores: log probability over length to the power of the length penalty `[batch, beams]`.
        real: False where no row has ended yet `[batch, beams]`.
        lengths: new tokens, the end included `[batch, beams]`.
        indices: from which row of the search each token came `[batch, beams, capacity]`, -1 behind the end.
    """

    tokens: tf.Tensor
    scores: tf.Tensor
    real: tf.Tensor
    lengths: tf.Tensor
    indices: tf.Tensor


class Running(NamedTuple):
    """The rows that go on.

    Attributes:
        tokens, indices: as in `Finished`.
        scores: log probabilities `[batch, beams]`.
        origin: the row of the search that each one continues `[batch, beams]`, counted within the batch's row.
    """

    tokens: tf.Tensor
    scores: tf.Tensor
    origin: tf.Tensor
    indices: tf.Tensor


class Carry(NamedTuple):
    """Where a beam search stands.

    Attributes:
        improvable: for which rows of the batch a running row may still become better than the finished ones.
        goes_on: scalar.
    """

    step: tf.Tensor
    running: Running
    finished: Finished
    improvable: tf.Tensor
    goes_on: tf.Tensor
    memory: Memory
    kept: dict


@dataclass(frozen=True)
class Beams:
    """Keeps the likeliest rows at each step; reference: `_beam_search` of transformers 5.

    Attributes:
        copies: how many rows are kept of each prompt.
        returned: how many of them are returned.
        ends: how many tokens there are that end a row.
        sample: whether continuations are drawn, without replacement.
    """

    copies: int
    returned: int = 1
    ends: int = 1
    sample: bool = False
    options = ("length_penalty", "early_stopping")
    revises = True

    @property
    def candidates(self) -> int:
        """How many continuations are looked at, so that enough of them do not end."""
        return max(2, 1 + self.ends) * self.copies

    def start(self, run: Run) -> Carry:
        """Reads the prompts and chooses the first tokens."""
        _, logits, memory = run.begin()
        running, finished = first_beams(run, 1)
        improvable = tf.ones([run.batch], tf.bool)
        kept = run.nothing_kept(run.rows, logits.shape[-1])
        carry = Carry(tf.constant(0), running, finished, improvable, tf.constant(True), memory, kept)
        return self._choose(run, carry, logits)

    def goes_on(self, carry: Carry, options: Options) -> tf.Tensor:
        """Whether a better row may come."""
        return carry.goes_on

    def advance(self, run: Run, carry: Carry) -> Carry:
        """Reads the last tokens and chooses the next."""
        logits, memory = advanced(run, carry)
        return self._choose(run, carry._replace(memory=memory), logits)

    def result(self, run: Run, carry: Carry) -> Generated:
        """The best rows of each prompt."""
        return best_rows(run, carry, carry.finished, self.returned)

    def _choose(self, run, carry, logits):
        step, count = carry.step, self.copies
        scores = run.processed(tf.nn.log_softmax(logits), carry.memory, step, keep=1 + max(1, self.ends))
        totals = tf.reshape(scores, (run.batch, count, -1)) + carry.running.scores[:, :, None]
        totals = tf.reshape(totals, (run.batch, -1))
        values, places = self._candidates(run, totals, step)
        continued, ended = continuations(run, carry, values, places, logits.shape[-1])
        ended = ended | (step + 1 == run.options.max_new_tokens)
        running, stop, token = run_on(run, carry, continued, ended, count)
        finished = self._finish(run, carry, continued, ended)
        improvable = self._improvable(run, carry, running, finished)
        early = run.options.values["early_stopping"] == EARLY[True]
        goes_on = tf.reduce_any(improvable) & ~(tf.reduce_all(finished.real) & early) & ~tf.reduce_all(ended)
        memory = moved(run, carry.memory, running.origin)._replace(stop=stop)
        return Carry(
            step=step + 1,
            running=running,
            finished=finished,
            improvable=improvable,
            goes_on=goes_on,
            memory=run.followed(memory, tf.reshape(token, [-1]), step),
            kept=run.keep(carry.kept, step, scores=scores, logits=logits),
        )

    def _candidates(self, run, totals, step):
        if not self.sample:
            return tf.math.top_k(totals, self.candidates)
        places = tf.math.top_k(perturbed(totals, run.options.seed + tf.stack([0, step])), self.candidates)[1]
        return tf.gather(totals, places, batch_dims=1), places

    def _finish(self, run, carry, continued, ended):
        """The finished rows with those of the first candidates that ended."""
        early = run.options.values["early_stopping"] == EARLY[True]
        full = tf.reduce_all(carry.finished.real, axis=1, keepdims=True) & early
        enter = ended & (tf.range(self.candidates) < self.copies)
        closed = full | ~carry.improvable[:, None] | ~enter
        length = carry.step + 1
        scores = with_penalty(run, continued.scores, length) + FAR * tf.cast(closed, "float32")
        lengths = tf.fill(tf.shape(scores), length)
        return merged(
            carry.finished, Finished(continued.tokens, scores, enter, lengths, continued.indices), self.copies
        )

    def _improvable(self, run, carry, running, finished):
        values = run.options.values
        longest = (values["early_stopping"] == EARLY["never"]) & (values["length_penalty"] > 0)
        length = tf.where(longest, run.options.max_new_tokens, carry.step + 1)
        best = with_penalty(run, running.scores[:, :1], length)
        worst = tf.where(finished.real, tf.reduce_min(finished.scores, axis=1, keepdims=True), FAR)
        return carry.improvable & tf.reduce_any(best > worst, axis=1)


def first_beams(run: Run, groups: int) -> tuple[Running, Finished]:
    """Beams without tokens: the first of each group counts, the others are copies of it and must not be taken."""
    shape = tf.stack([run.batch, run.copies])
    padding = run.padding(run.batch, run.copies)
    indices = tf.fill(tf.shape(padding), -1)
    first = tf.range(run.copies) % (run.copies // groups) == 0
    scores = tf.broadcast_to(tf.where(first, 0.0, FAR), shape)
    nothing = tf.zeros(shape, "int32")
    running = Running(padding, scores, nothing, indices)
    return running, Finished(padding, tf.fill(shape, FAR), tf.zeros(shape, tf.bool), nothing, indices)


def advanced(run: Run, carry) -> tuple[tf.Tensor, Memory]:
    """The logits after the last tokens of all running rows, and the new memory."""
    token = tf.gather(carry.running.tokens, carry.step - 1, axis=2)
    state = run.reordered(carry.memory.state, flat(run, carry.running.origin), run.width, run.capacity)
    token = tf.maximum(tf.reshape(token, [-1]), 0)  # padding need not be a token
    hidden, memory = run.extend(token, carry.step, carry.memory._replace(state=state))
    return run.logits(hidden), memory


def flat(run: Run, origin: tf.Tensor) -> tf.Tensor:
    """Rows of the search `[rows]` from numbers within the batch's rows `[batch, beams]`."""
    return tf.reshape(origin + run.copies * tf.range(run.batch)[:, None], [-1])


def continuations(run: Run, carry, values, places, vocabulary, first: int = 0) -> tuple[tuple, tf.Tensor]:
    """Candidates from their places in `[batch, beams * vocabulary]`, and which of them ended.

    Args:
        values: their log probabilities `[batch, candidates]`.
        first: the beam that the places count from.
    """
    beam, token = first + places // vocabulary, places % vocabulary
    here = run.columns == carry.step
    tokens = tf.where(here, token[:, :, None], tf.gather(carry.running.tokens, beam, batch_dims=1))
    row = beam + run.copies * tf.range(run.batch)[:, None]
    indices = tf.where(here, row[:, :, None], tf.gather(carry.running.indices, beam, batch_dims=1))
    stop = carry.memory.stop
    if run.plan.stop_strings:
        stop = tf.gather(stop, row)
    ended, stop = run.ends(token, stop)
    return Continued(tokens, values, beam, indices, token, stop), ended


class Continued(NamedTuple):
    """Candidates: `Running` with the new tokens and what they spell of the stop strings `[batch, candidates]`."""

    tokens: tf.Tensor
    scores: tf.Tensor
    origin: tf.Tensor
    indices: tf.Tensor
    token: tf.Tensor
    stop: object


def run_on(run: Run, carry, continued: Continued, ended: tf.Tensor, count: int) -> tuple:
    """The best candidates that did not end, as running rows, what they spell of stop strings, and their tokens."""
    scores, chosen = tf.math.top_k(continued.scores + FAR * tf.cast(ended, "float32"), count)
    tokens, origin, indices, token = (
        tf.gather(values, chosen, batch_dims=1)
        for values in (continued.tokens, continued.origin, continued.indices, continued.token)
    )
    stop = ()
    if run.plan.stop_strings:
        stop = tf.reshape(tf.gather(continued.stop, chosen, batch_dims=1), [-1])
    return Running(tokens, scores, origin, indices), stop, token


def moved(run: Run, memory: Memory, origin: tf.Tensor) -> Memory:
    """The memory's tokens as the running rows continue them; the decoding state follows in the next step."""
    if not isinstance(memory.tokens, tf.Tensor):
        return memory
    return memory._replace(tokens=tf.gather(memory.tokens, flat(run, origin)))


def with_penalty(run: Run, scores: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Log probabilities over the length to the power of the length penalty."""
    return scores / tf.cast(length, "float32") ** run.options.values["length_penalty"]


def merged(old: Finished, new: Finished, count: int) -> Finished:
    """The best `count` of both, the best first."""
    both = Finished(*(tf.concat(pair, axis=1) for pair in zip(old, new, strict=True)))
    scores, chosen = tf.math.top_k(both.scores, count)
    return Finished(*(tf.gather(values, chosen, batch_dims=1) for values in both))._replace(scores=scores)


def best_rows(run: Run, carry, finished: Finished, returned: int) -> Generated:
    """The first finished rows of each prompt, all in one axis."""

    def first(values):
        shape = tf.concat([[-1], tf.shape(values)[2:]], 0)
        return tf.reshape(values[:, :returned], shape)

    found = {"sequences_scores": first(finished.scores), "beam_indices": first(finished.indices)}
    return Generated(first(finished.tokens), first(finished.lengths), carry.step, carry.kept, found)

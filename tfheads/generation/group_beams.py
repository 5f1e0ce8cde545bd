"""Beam search in groups that are kept apart by a penalty (Vijayakumar et al. 2018)."""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tfheads.generation import beams
from tfheads.generation.beams import EARLY, FAR, Continued, Finished, Running
from tfheads.generation.loop import Memory, Run
from tfheads.generation.plan import Generated, Options
from tfheads.generation.processors import token_counts


class Carry(NamedTuple):
    """Where a search in groups stands; as in beam search, and for each group whether it is done `[batch, groups]`."""

    step: tf.Tensor
    running: Running
    finished: Finished
    done: tf.Tensor
    memory: Memory
    kept: dict


@dataclass(frozen=True)
class GroupBeams:
    """Beam searches side by side, each with a penalty on what the earlier ones chose at the same step.

    Reference: `_group_beam_search` and `BeamSearchScorer` of transformers 4.49.

    Attributes:
        copies: how many rows are kept of each prompt, in all groups.
        groups: how many groups they form.
        returned: how many rows are returned, the best of all groups.
        ends: how many tokens there are that end a row.
    """

    copies: int
    groups: int
    returned: int = 1
    ends: int = 1
    sample = False
    options = ("length_penalty", "early_stopping", "diversity_penalty")
    revises = True

    @property
    def size(self) -> int:
        """How many rows a group has."""
        return self.copies // self.groups

    def start(self, run: Run) -> Carry:
        """Reads the prompts and chooses the first tokens."""
        _, logits, memory = run.begin()
        running, finished = beams.first_beams(run, self.groups)
        done = tf.zeros(tf.stack([run.batch, self.groups]), tf.bool)
        kept = run.nothing_kept(run.rows, logits.shape[-1])
        return self._choose(run, Carry(tf.constant(0), running, finished, done, memory, kept), logits)

    def goes_on(self, carry: Carry, options: Options) -> tf.Tensor:
        """Whether a group is not done and there is room."""
        return (carry.step < options.max_new_tokens) & ~tf.reduce_all(carry.done)

    def advance(self, run: Run, carry: Carry) -> Carry:
        """Reads the last tokens and chooses the next."""
        logits, memory = beams.advanced(run, carry)
        return self._choose(run, carry._replace(memory=memory), logits)

    def result(self, run: Run, carry: Carry) -> Generated:
        """The best rows of each prompt; groups that were not done add those that still run."""
        open_rows = ~tf.repeat(carry.done, self.size, axis=1)
        lengths = tf.fill(tf.shape(carry.running.scores), carry.step)
        scores = beams.with_penalty(run, carry.running.scores, carry.step)
        last = Finished(carry.running.tokens, scores, open_rows, lengths, carry.running.indices)
        groups = [
            beams.merged(self._part(carry.finished, group), _only_real(self._part(last, group)), self.size)
            for group in range(self.groups)
        ]
        best = beams.merged(_joined(groups[:1]), _joined(groups[1:]), self.returned)
        return beams.best_rows(run, carry, best, self.returned)

    def _choose(self, run, carry, logits):
        chosen, taken = [], tf.zeros([run.batch, logits.shape[-1]])
        for group in range(self.groups):
            one = self._choose_in_group(run, carry, logits, group, taken)
            taken += tf.cast(token_counts(one.token, tf.ones_like(one.token, tf.bool), logits.shape[-1]), "float32")
            chosen.append(one)
        running, finished = (_joined([getattr(one, name) for one in chosen]) for name in ("running", "finished"))
        done, token = (tf.concat([getattr(one, name) for one in chosen], axis=1) for name in ("done", "token"))
        memory = beams.moved(run, carry.memory, running.origin)
        if run.plan.stop_strings:
            memory = memory._replace(stop=tf.reshape(tf.concat([one.stop for one in chosen], axis=1), [-1]))
        scores = tf.concat([tf.reshape(one.scores, (run.batch, self.size, -1)) for one in chosen], axis=1)
        kept = run.keep(carry.kept, carry.step, scores=tf.reshape(scores, (run.rows, -1)), logits=logits)
        memory = run.followed(memory, tf.reshape(token, [-1]), carry.step)
        return Carry(carry.step + 1, running, finished, done, memory, kept)

    def _choose_in_group(self, run, carry, logits, group, taken):
        """The next tokens of one group."""
        first, count = group * self.size, self.size
        vocabulary, step = logits.shape[-1], carry.step

        def part(values):
            by_row = tf.reshape(values, tf.concat([[run.batch, self.copies], tf.shape(values)[1:]], 0))
            return tf.reshape(by_row[:, first : first + count], tf.concat([[-1], tf.shape(values)[1:]], 0))

        own = tf.ensure_shape(part(logits), [None, vocabulary])
        taken = tf.repeat(taken, count, axis=0)
        scores = run.processed(tf.nn.log_softmax(own), carry.memory, step, part=part, taken=taken)
        totals = (
            tf.reshape(scores, (run.batch, count, vocabulary)) + carry.running.scores[:, first : first + count, None]
        )
        candidates = max(2, 1 + self.ends) * count
        values, places = tf.math.top_k(tf.reshape(totals, (run.batch, -1)), candidates)
        continued, ended = beams.continuations(run, carry, values, places, vocabulary, first)
        running, stop, token = beams.run_on(run, carry, continued, ended, count)
        was_done = carry.done[:, group : group + 1]
        old = self._part(carry.finished, group)
        finished = self._finish(run, continued, ended & ~was_done, old, step + 1)
        done = was_done | self._is_done(run, finished, values, step + 1)
        # A group that is done goes on with padding, which counts as chosen.
        token = tf.where(was_done, run.options.pad_token_id, token)
        running = running._replace(scores=tf.where(was_done, 0.0, running.scores))
        return Chosen(running, finished, done, token, stop if stop == () else tf.reshape(stop, (-1, count)), scores)

    def _finish(self, run, continued: Continued, ended, old, length):
        enter = ended & (tf.range(tf.shape(ended)[1]) < self.size)
        scores = beams.with_penalty(run, continued.scores, length)
        lengths = tf.fill(tf.shape(scores), length)
        new = Finished(continued.tokens, scores, enter, lengths, continued.indices)
        return beams.merged(old, _only_real(new), self.size)

    def _is_done(self, run, finished, values, length):
        options = run.options.values
        longest = (options["early_stopping"] == EARLY["never"]) & (options["length_penalty"] > 0)
        length = tf.where(longest, run.options.max_new_tokens, length)
        attainable = beams.with_penalty(run, values[:, :1], length)
        worst = tf.reduce_min(finished.scores, axis=1, keepdims=True)
        enough = (options["early_stopping"] == EARLY[True]) | (worst >= attainable)
        return tf.reduce_all(finished.real, axis=1, keepdims=True) & enough

    def _part(self, rows, group):
        return type(rows)(*(values[:, group * self.size : (group + 1) * self.size] for values in rows))


class Chosen(NamedTuple):
    """What one group chose at a step."""

    running: Running
    finished: Finished
    done: tf.Tensor
    token: tf.Tensor
    stop: object
    scores: tf.Tensor


def _only_real(finished: Finished) -> Finished:
    """With a score behind all others where no row ended."""
    return finished._replace(scores=tf.where(finished.real, finished.scores, FAR))


def _joined(parts: list):
    """The beams of several groups side by side."""
    return type(parts[0])(*(tf.concat(values, axis=1) for values in zip(*parts, strict=True)))

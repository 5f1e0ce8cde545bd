"""The decoding loop: one prefill over the prompts, then one token for each row at a step."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tfheads.generation import processors
from tfheads.generation.plan import Generated, Options, Plan, Prompt
from tfheads.generation.sampling import WARPERS, drawn, drawn_by_rows
from tfheads.layers.column_blocks import table_or_blocks
from tfheads.layers.slots import write_slots


def decode(model, plan: Plan, prompt: Prompt, options: Options, capacity) -> Generated:
    """New tokens for each row, a pure function of tensors that XLA can compile.

    All rows write the same slot of the cache at a step, each row carries its own position: a padded row generates
    what it would generate alone.

    Args:
        model: a model that generates.
        plan: what the loop is made for.
        prompt: what it goes on from.
        options: the values.
        capacity: how many new tokens there is room for; a number, or a scalar tensor outside XLA.
    """
    run = Run(model, plan, prompt, options, capacity)
    search = plan.search

    def advance(carry):
        return (tf.nest.map_structure(_of_one_shape, search.advance(run, carry), carry),)

    start = (search.start(run),)
    return search.result(run, tf.while_loop(lambda carry: search.goes_on(carry, options), advance, start)[0])


def _of_one_shape(new, old):
    """The new value, known to have the shape of the old one, as it always has."""
    new.set_shape(old.shape)
    return new


class Memory(NamedTuple):
    """What belongs to the rows of a search and moves with them.

    Attributes:
        state: the backbone's decoding state.
        tokens: prompt and new tokens `[rows, time + capacity]`; empty if no processor reads them.
        stop: how much of the stop strings each row has just spelled `[rows]`; empty without stop strings.
    """

    state: object
    tokens: object
    stop: object


class Run:
    """What all searches share: the model's steps, the processors, the ends of rows.

    A search has `copies` rows for each row of the prompt, side by side; the prompt is read once.
    """

    def __init__(self, model, plan: Plan, prompt: Prompt, options: Options, capacity):
        self.model, self.plan, self.prompt, self.options, self.capacity = model, plan, prompt, options, capacity
        self.copies = plan.search.copies
        shape = tf.shape(prompt.input_ids)
        self.batch = prompt.input_ids.shape[0] or shape[0]
        self.width = prompt.input_ids.shape[1] or shape[1]
        self.lengths = self.repeated(prompt.lengths)
        self.columns = tf.range(capacity)

    @property
    def rows(self):
        """How many rows the search has."""
        return self.batch * self.copies

    def repeated(self, values):
        """`[batch, ...]` for each row of the search."""
        return values if self.copies == 1 else tf.repeat(values, self.copies, axis=0)

    def begin(self) -> tuple:
        """Reads the prompts: hidden values `[batch, time, hidden]`, logits `[rows, vocabulary]`, the memory."""
        input_ids, lengths, source = self.prompt
        columns = tf.range(self.width)[None, :]
        real = columns < lengths[:, None]
        prompt = {"input_ids": input_ids, "attention_mask": real, "position_ids": columns}
        slots = self.width + self.capacity
        state = self.model.backbone.decoding_state(source or prompt, slots)
        hidden, state = self.model.backbone.extend(prompt, state, 0)
        logits = self.logits(tf.gather(hidden, lengths - 1, axis=1, batch_dims=1))
        tokens = stop = ()
        if self.plan.processors & processors.READ_TOKENS:
            tokens = self.repeated(tf.pad(input_ids, [[0, 0], [0, self.capacity]]))
        if self.plan.stop_strings:
            stop = self.repeated(self._spelled())
        return hidden, self.repeated(logits), Memory(tf.nest.map_structure(self.repeated, state), tokens, stop)

    def extend(self, token: tf.Tensor, step: tf.Tensor, memory: Memory) -> tuple:
        """Reads one more token of each row `[rows]`: hidden values `[rows, hidden]` and the new memory."""
        read = tf.minimum(step, self.options.max_new_tokens)  # a row that has ended before others goes no further
        inputs = {"input_ids": token[:, None], "position_ids": (self.lengths + read - 1)[:, None]}
        hidden, state = self.model.backbone.extend(inputs, memory.state, self.width + step - 1)
        return hidden[:, 0], memory._replace(state=state)

    def reordered(self, state, rows: tf.Tensor, slot, size):
        """The decoding state in which each row has what `rows` have read in the `size` slots from `slot` on."""
        return self.model.backbone.reordered(state, rows, slot, size)

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """Float32 logits `[batch, vocabulary]` of hidden values `[batch, hidden]`."""
        table = table_or_blocks(self.model.backbone.token_table)
        output = self.model.head({"last_hidden_state": hidden[:, None]}, token_table=table, training=False)
        return tf.cast(output["logits"][:, 0], tf.float32)

    def processed(
        self,
        logits: tf.Tensor,
        memory: Memory,
        step: tf.Tensor,
        part=None,
        without: Collection[str] = (),
        values: Mapping | None = None,
        **more,
    ) -> tf.Tensor:
        """The logits after all processors.

        Args:
            part: picks the rows that the logits are of; by default all.
            without: names of processors that are left out.
            values: what the processors read, in place of the options' values.
        """
        part = (lambda values: values) if part is None else part
        source = None
        if self.plan.processors & {"encoder_repetition_penalty", "encoder_no_repeat_ngram_size"}:
            tokens, real = self._source()
            source = part(self.repeated(tokens)), part(self.repeated(real))
        vocabulary = tf.range(logits.shape[-1])
        context = processors.Context(
            tokens=part(memory.tokens) if isinstance(memory.tokens, tf.Tensor) else None,
            lengths=part(self.lengths) + step,
            step=step,
            max_new_tokens=self.options.max_new_tokens,
            is_end=self.is_end(vocabulary),
            source=source,
            **more,
        )
        values = {
            name: part(self.repeated(value)) if name == "min_new_tokens" and value.shape.rank else value
            for name, value in (values or self.options.values).items()
        }
        return processors.processed(logits, self.plan.processors.difference(without), context, values)

    def _source(self):
        if self.prompt.source:
            return self.prompt.source["input_ids"], self.prompt.source["attention_mask"]
        return self.prompt.input_ids, tf.range(self.width)[None, :] < self.prompt.lengths[:, None]

    def is_end(self, tokens: tf.Tensor) -> tf.Tensor:
        """Which tokens end a row."""
        return tf.reduce_any(tokens[..., None] == self.options.eos_token_ids, axis=-1)

    def ends(self, token: tf.Tensor, stop) -> tuple:
        """Which rows `token` ends, by itself or by completing a stop string, and the new `stop`."""
        ended = self.is_end(token)
        if not self.plan.stop_strings:
            return ended, stop
        stop, completed = self._spell(stop, token)
        return ended | completed, stop

    def _spelled(self):
        """What the prompts have spelled of stop strings `[batch]`; those that they hold end nothing."""
        ids, lengths = self.prompt.input_ids, self.prompt.lengths

        def body(column, stop):
            return column + 1, tf.where(column < lengths, self._spell(stop, ids[:, column])[0], stop)

        return tf.while_loop(lambda column, _: column < self.width, body, (tf.constant(0), tf.zeros_like(lengths)))[1]

    def _spell(self, stop, token):
        table = self.options.values["stop_strings"]
        known = (token >= 0) & (token < table.shape[1])
        entry = tf.where(known, tf.gather_nd(table, tf.stack([stop, tf.where(known, token, 0)], axis=-1)), 0)
        return entry // 2, entry % 2 == 1

    def followed(self, memory: Memory, token: tf.Tensor, step: tf.Tensor) -> Memory:
        """The memory with `token` `[rows]` as the next of each row's tokens."""
        if not isinstance(memory.tokens, tf.Tensor):
            return memory
        place = tf.range(tf.shape(memory.tokens)[1])[None, :] == (self.lengths + step)[:, None]
        return memory._replace(tokens=tf.where(place, token[:, None], memory.tokens))

    def padding(self, *shape) -> tf.Tensor:
        """Room for new tokens `[*shape, capacity]`, filled with the padding."""
        tokens = tf.fill(tf.stack([*shape, self.capacity]), self.options.pad_token_id)
        return tf.ensure_shape(tokens, [size if isinstance(size, int) else None for size in (*shape, self.capacity)])

    def nothing_kept(self, rows, vocabulary: int) -> dict:
        """Room for what the plan keeps of each step."""
        shape = tf.stack([self.capacity, rows, vocabulary])
        return {name: tf.zeros(shape, "float32") for name in sorted(self.plan.outputs)}

    def keep(self, kept: Mapping, step: tf.Tensor, **values: tf.Tensor) -> dict:
        """`kept` with the values `[rows, vocabulary]` of a step."""
        return {name: write_slots(old, values[name][None], step, axis=0) for name, old in kept.items()}


class Tokens(NamedTuple):
    """Where a `TokenByToken` search stands."""

    step: tf.Tensor
    token: tf.Tensor
    tokens: tf.Tensor
    lengths: tf.Tensor
    ended: tf.Tensor
    memory: Memory
    kept: dict


@dataclass(frozen=True)
class TokenByToken:
    """Takes the likeliest token at each step, or draws one.

    Attributes:
        sample: whether tokens are drawn.
        copies: how many rows are made of each prompt.
    """

    sample: bool = False
    copies: int = 1
    options = ()
    revises = False

    def start(self, run: Run) -> Tokens:
        """Reads the prompts and chooses the first tokens."""
        _, logits, memory = run.begin()
        lengths = tf.zeros_like(run.lengths)
        kept = run.nothing_kept(run.rows, logits.shape[-1])
        step = tf.constant(0)
        ended = (lengths + step) >= run.options.max_new_tokens
        return self._choose(run, Tokens(step, lengths, run.padding(run.rows), lengths, ended, memory, kept), logits)

    def goes_on(self, carry: Tokens, options: Options) -> tf.Tensor:
        """Whether a row has not ended."""
        return ~tf.reduce_all(carry.ended)

    def advance(self, run: Run, carry: Tokens) -> Tokens:
        """Reads the last tokens and chooses the next."""
        hidden, memory = run.extend(carry.token, carry.step, carry.memory)
        return self._choose(run, carry._replace(memory=memory), run.logits(hidden))

    def result(self, run: Run, carry: Tokens) -> Generated:
        """All rows."""
        return Generated(carry.tokens, carry.lengths, carry.step, carry.kept, {})

    def _choose(self, run, carry, logits):
        step, memory = carry.step, carry.memory
        chosen, scores = self._chosen(run, logits, memory, step)
        # The padding need not be a token that the model knows, so the model reads what was chosen.
        token = tf.where(carry.ended, run.options.pad_token_id, chosen)
        ends, stop = run.ends(chosen, memory.stop)
        return Tokens(
            step=step + 1,
            token=chosen,
            tokens=tf.where((run.columns == step)[None, :], token[:, None], carry.tokens),
            lengths=carry.lengths + tf.cast(~carry.ended, "int32"),
            ended=carry.ended | ends | (step + 1 >= run.options.max_new_tokens),
            memory=run.followed(memory._replace(stop=stop), chosen, step),
            kept=run.keep(carry.kept, step, scores=scores, logits=logits),
        )

    def _chosen(self, run, logits, memory, step):
        """The next token of each row, and the scores that it was chosen by."""
        scores = run.processed(logits, memory, step)
        if self.sample:
            return drawn(scores, run.options.seed + tf.stack([0, step])), scores
        return tf.argmax(scores, axis=-1, output_type=tf.int32), scores


@dataclass(frozen=True)
class RowByRow(TokenByToken):
    """Takes each row's next token as that row wants it: draws where its temperature is above 0.

    Temperatures, limits and seeds are `[batch]`. What a row gets does not depend on the rows beside it.
    """

    sample: bool = True

    def _chosen(self, run, logits, memory, step):
        scores = run.processed(logits, memory, step, without=WARPERS.keys())
        likeliest = tf.argmax(scores, axis=-1, output_type=tf.int32)
        draws = run.options.values["temperature"] > 0.0

        def some():
            warm = {**run.options.values, "temperature": tf.where(draws, run.options.values["temperature"], 1.0)}
            restricted = run.processed(logits, memory, step, values=warm)
            return tf.where(draws, drawn_by_rows(restricted, run.options.seed + tf.stack([0, step])), likeliest)

        return tf.cond(tf.reduce_any(draws), some, lambda: likeliest), scores

"""Generation step by step, so that tokens can be read while they are made."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfheads.generation.loop import Run
from tfheads.generation.plan import Generated, Options, Plan, Prompt


def stepper(model, plan: Plan, jit_compile: bool) -> tuple[Callable, Callable, Callable]:
    """The beginning, the step and the end of a search as compiled functions."""

    def compiled(function):
        return tf.function(functools.partial(function), jit_compile=jit_compile, autograph=False)

    def start(prompt, options, capacity):
        return plan.search.start(Run(model, plan, prompt, options, capacity))

    def advance(prompt, options, carry, capacity):
        return plan.search.advance(Run(model, plan, prompt, options, capacity), carry)

    def result(prompt, options, carry, capacity):
        return plan.search.result(Run(model, plan, prompt, options, capacity), carry)

    return compiled(start), compiled(advance), result


def stream(
    functions: tuple, plan: Plan, prompt: Prompt, options: Options, capacity: int, put: Callable[[np.ndarray], None]
) -> Generated:
    """Runs a search; after each step `put` gets the new token of each row `[batch]`."""
    start, advance, result = functions
    carry, shown = start(prompt, options, capacity), 0
    while True:
        if int(carry.step) > shown:
            put(carry.tokens[:, shown].numpy())
            shown += 1
        if not bool(plan.search.goes_on(carry, options)):
            return result(prompt, options, carry, capacity)
        carry = advance(prompt, options, carry, capacity)

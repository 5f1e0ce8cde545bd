"""How every peer is measured, so that they differ in the model alone. Needs numpy only.

A peer gives a function `prepare(arguments)` that builds the model with random weights and returns a function which does
one repeat and returns a number (a loss, a sum of logits, a count of new tokens) to show that it was done.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.peers.shapes import SHAPES

TASKS = ("train_step", "forward", "generate", "limits", "classify_texts", "continue_texts")


def parser() -> argparse.ArgumentParser:
    """The arguments that all peers take."""
    made = argparse.ArgumentParser(description="Measures one task of one peer; prints one JSON line.")
    made.add_argument("--task", choices=TASKS, default="forward")
    made.add_argument("--model", choices=tuple(SHAPES), default="gpt2")
    made.add_argument("--batch", type=int, default=4, help="rows")
    made.add_argument("--length", type=int, default=128, help="tokens a row; for generate, of the prompt")
    made.add_argument("--new-tokens", type=int, default=64, help="tokens to generate for each row")
    made.add_argument("--dropout", type=float, default=0.1, help="all dropout rates while training")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--warm-up", type=int, default=2, help="repeats that are not counted, the first included")
    made.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    made.add_argument("--gradient-checkpointing", action="store_true", help="tfheads only: less memory, more time")
    made.add_argument("--folder", help="of classify_texts and continue_texts: what serving_models has made")
    made.add_argument("--compiled", action="store_true", help="PyTorch only: torch.compile")
    made.add_argument("--on-request", action="store_true", help="one repeat for each line on standard input")
    return made


def token_ids(arguments: argparse.Namespace, vocabulary: int) -> np.ndarray:
    """Random token ids `[batch, length]`, the same for every peer."""
    return np.random.RandomState(0).randint(5, vocabulary, (arguments.batch, arguments.length)).astype("int32")


def run(prepare: Callable[[argparse.Namespace], tuple[Callable[[], float], int]]) -> None:
    """Builds, warms up, measures and prints.

    `prepare` returns the function of one repeat, and how many parameters the model has.
    """
    arguments = parser().parse_args()
    repeat, parameters = prepare(arguments)
    first = _timed(repeat)
    for _ in range(arguments.warm_up - 1):
        _timed(repeat)
    if arguments.on_request:
        _say({"ready": True})
        seconds = [_answer(repeat) for line in sys.stdin if line.strip()]
    else:
        seconds = [_timed(repeat)[0] for _ in range(arguments.repeats)]
    _say(
        {
            "median_seconds": statistics.median(seconds) if seconds else None,
            "min_seconds": min(seconds, default=None),
            "first_result_seconds": first[0],
            "peak_memory_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "parameters": parameters,
            "value": first[1],
        }
    )


def _timed(repeat) -> tuple[float, object]:
    start = time.perf_counter()
    value = repeat()
    seconds = time.perf_counter() - start
    values = value.values() if isinstance(value, dict) else [value]
    if not all(math.isfinite(number) for number in values):
        raise ArithmeticError(f"a repeat gave {value}: the measurement is worthless")
    return seconds, value


def _answer(repeat) -> float:
    seconds, value = _timed(repeat)
    _say({"seconds": seconds, "value": value})
    return seconds


def _say(entries: dict) -> None:
    print(json.dumps(entries), flush=True)

"""Many callers of one loaded SavedModel: are there errors, does memory grow, are the answers those of a single caller?

    python -m benchmarks.serving_load VERSION_DIRECTORY [--requests 10000] [--callers 8]

VERSION_DIRECTORY is an export whose `serving_default` takes `text` and gives a label and a score, or texts.
"""

import argparse
import concurrent.futures
import gc
import json
import random
import resource
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 - the tokenizers' operations

TEXTS = ["the cat sat on the mat", "", "a café 中 😀", "nul\0 inside", "x", "the dog ran over " * 30, "red mat?", " "]
AT_ONCE = 1000
PAGE = resource.getpagesize()


def load(signature, requests: int, callers: int, at_once: int = AT_ONCE) -> dict:
    """Sends requests of one to four texts from several threads.

    Args:
        signature: from `text` `[batch]` to outputs `[batch, ...]` by name.
        requests, callers: how many.
        at_once: requests that are handed to the threads together; memory is measured after them.

    Returns:
        How many answers were "wrong", the "errors", "seconds", and the "megabytes" after each `at_once` requests.
    """
    alone = [answer_of(signature, [text]) for text in TEXTS]
    begin = time.perf_counter()
    wrong, errors, memory = 0, [], []
    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        for start in range(0, requests, at_once):
            seeds = range(start, min(start + at_once, requests))
            for different, error in pool.map(lambda seed: one(signature, alone, seed), seeds):
                wrong += different
                errors += [error] if error else []
            gc.collect()
            memory.append(megabytes())
    return {"wrong": wrong, "errors": errors, "seconds": time.perf_counter() - begin, "megabytes": memory}


def one(signature, alone: list, seed: int) -> tuple[int, str]:
    """A request; how many of its rows are not what they are alone, and the error."""
    chosen = random.Random(seed).choices(range(len(TEXTS)), k=1 + seed % 4)
    try:
        answer = answer_of(signature, [TEXTS[index] for index in chosen])
    except tf.errors.OpError as error:
        return 0, str(error)
    rows = [[value[row] for value in answer] for row in range(len(chosen))]
    wrong = [not same(row, [value[0] for value in alone[i]]) for i, row in zip(chosen, rows, strict=True)]
    return sum(wrong), ""


def answer_of(signature, texts: list[str]) -> list[np.ndarray]:
    """The outputs in the order of their names."""
    return [value.numpy() for _, value in sorted(signature(text=tf.constant(texts)).items())]


def same(row, expected) -> bool:
    """Whether texts are equal and numbers nearly so, for the length of a batch changes the order of sums."""
    return all(
        np.allclose(a, b, atol=1e-5) if np.asarray(a).dtype.kind == "f" else np.array_equal(a, b)
        for a, b in zip(row, expected, strict=True)
    )


def megabytes() -> float:
    """What the process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=8)
    arguments = parser.parse_args()
    loaded = tf.saved_model.load(str(arguments.directory))
    print(json.dumps(load(loaded.signatures["serving_default"], arguments.requests, arguments.callers)))


if __name__ == "__main__":
    main()

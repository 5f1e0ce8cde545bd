"""The machine's limits as TensorFlow reaches them: float32 matrix rate with and without XLA, memory reading rate."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time

import tensorflow as tf

from benchmarks.peers import measuring


def best_seconds(action, times: int = 3) -> float:
    """The shortest of a few runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def prepare(arguments):
    """One repeat gives GFLOP/s and gigabytes a second."""
    size = 256 if arguments.tiny else 2048
    left, right = tf.random.normal((size, size)), tf.random.normal((size, size))
    compiled = tf.function(tf.matmul, jit_compile=True)
    long = tf.random.normal(((1 << 20) if arguments.tiny else (1 << 27),))
    table = tf.random.normal((768, 503 if arguments.tiny else 50257))
    row = tf.random.normal((1, 768))
    read_by_xla = tf.function(tf.matmul, jit_compile=True)

    def repeat() -> dict:
        operations = 2 * size**3 / 1e9
        return {
            "TensorFlow GFLOP/s": operations / best_seconds(lambda: tf.matmul(left, right).numpy()),
            "XLA GFLOP/s": operations / best_seconds(lambda: compiled(left, right).numpy()),
            "TensorFlow sum GB/s": long.shape[0] * 4e-9 / best_seconds(lambda: tf.reduce_sum(long).numpy()),
            "XLA vector x matrix GB/s": table.shape[0]
            * table.shape[1]
            * 4e-9
            / best_seconds(lambda: read_by_xla(row, table).numpy()),
        }

    return repeat, 0


if __name__ == "__main__":
    measuring.run(prepare)

"""Products of few rows with matrices that no cache holds: TensorFlow's, in blocks of columns, and XLA's.

    python -m benchmarks.row_products
    TF_ENABLE_ONEDNN_OPTS=0 python -m benchmarks.row_products --rows 1 8

Gigabytes of weights per second of processor time, which depends less than the clock on what else the machine does. The
ways take turns; the best of the rounds counts.
"""

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable
from unittest import mock

import tensorflow as tf

from tfheads.layers import column_blocks

INPUTS, OUTPUTS, MATRICES = 768, 3072, 24


def ways() -> dict[str, Callable]:
    """By name a function of rows `[rows, 768]` that reads all matrices once."""
    matrices = [tf.Variable(tf.random.normal([INPUTS, OUTPUTS])) for _ in range(MATRICES)]
    found = {"MatMul": reading([lambda x, m=m: tf.matmul(x, m) for m in matrices])}
    for width in (16, 32, 64):
        with mock.patch.object(column_blocks, "WIDTH", width):
            blocks = [column_blocks.ColumnBlocks(tf.convert_to_tensor(matrix)) for matrix in matrices]
            found[f"blocks of {width}"] = reading([block.product for block in blocks], width)
    found["XLA"] = tf.function(reading([lambda x, m=m: tf.matmul(x, m) for m in matrices]), jit_compile=True)
    return found


def reading(products: list[Callable], width: int = column_blocks.WIDTH) -> Callable:
    """One product after another, none of which can begin before the one before it ends."""

    def read(x):
        with mock.patch.object(column_blocks, "WIDTH", width):
            for product in products:
                x = x + 1e-30 * tf.reduce_sum(product(x))
            return x

    return tf.function(read, autograph=False)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 8, 128])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    functions, size = ways(), MATRICES * INPUTS * OUTPUTS * 4e-9
    print(f"| rows | {' | '.join(functions)} |\n|{'---|' * (len(functions) + 1)}")
    for rows in options.rows:
        x, best = tf.random.normal([rows, INPUTS]), dict.fromkeys(functions, float("inf"))
        for _ in range(options.rounds + 1):  # the first one traces
            for name, function in functions.items():
                start = time.process_time()
                function(x).numpy()
                best[name] = min(best[name], time.process_time() - start)
        print(f"| {rows} | {' | '.join(f'{size / seconds:.1f}' for seconds in best.values())} |", flush=True)


if __name__ == "__main__":
    main()

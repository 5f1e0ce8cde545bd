"""What more replicas cost: python -m benchmarks.scaling [--rows 4] [--steps 20]

Prints, for a small GPT-2 on this machine: the time of a step and the rows per second by strategy and replicas (each in
processes of its own, one after another), the bytes that are summed over replicas for an update against those of the
parameters, the overhead of a strategy with a single replica, and what follows for 8, 64 and 512 replicas.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.forked_processes import free_ports

ROOT = Path(__file__).parents[1]
TIME = 64
# Strategy, replicas of a process, processes.
KINDS = [("none", 1, 1), ("mirrored", 2, 1), ("mirrored", 4, 1), ("multi_worker", 1, 2), ("multi_worker", 1, 3)]
# What the model of cost takes for granted: name of the network, bytes per second of a replica, seconds of a message.
NETWORKS = [("NVLink, 8 GPUs of a host", 200e9, 5e-6), ("InfiniBand, 200 Gb/s", 20e9, 10e-6), ("10 Gb/s", 1e9, 50e-6)]


def small_model(accumulation: int = 1):
    """A compiled GPT-2 of the current strategy."""
    import transformers

    import tfheads
    from tfheads.optimizers import AdamW

    sizes = {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": TIME, "vocab_size": 4000}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    model = tfheads.AutoModelForCausalLM.from_config(config, seed=0)
    model.compile(AdamW(1e-4, global_clipnorm=1.0), gradient_accumulation_steps=accumulation)
    return model


def batches(rows: int):
    """The same batch again and again."""
    import numpy as np
    import tensorflow as tf

    ids = np.random.RandomState(0).randint(0, 4000, (rows, TIME)).astype("int32")
    data = tf.data.Dataset.from_tensors({"input_ids": ids, "labels": ids}).repeat()
    return data.map(lambda batch: {name: tf.ensure_shape(value, [rows, TIME]) for name, value in batch.items()})


def timed_steps(model, rows: int, steps: int):
    """A function that runs some updates and gives the seconds of each."""
    from tfheads.distribute.batches import divided

    strategy = model.distribute_strategy
    data = batches(rows) if strategy.num_replicas_in_sync == 1 else divided(batches(rows), strategy)
    if strategy.num_replicas_in_sync == 1:
        data = strategy.experimental_distribute_dataset(data)
    iterator = iter(data)
    model._symbolic_build()
    model.make_train_function()

    def run(count: int = steps) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            float(model.train_function(iterator)["loss"])
            seconds.append(time.perf_counter() - began)
        return seconds

    run(2)  # XLA compiles
    return run


def summed_bytes(model, rows: int) -> int:
    """The bytes that a replica puts into sums over replicas in one update, read from the traced step."""
    import tensorflow as tf

    from tfheads import trainer

    found, original = [], trainer.sum_over_replicas

    def counted(values):
        found.extend(value.shape.num_elements() * value.dtype.size for value in tf.nest.flatten(values))
        return original(values)

    trainer.sum_over_replicas = counted
    try:
        timed_steps(model, rows, 1)
    finally:
        trainer.sum_over_replicas = original
    return sum(found) // model.distribute_strategy.num_replicas_in_sync  # the step is traced once for each


def one_run(strategy_name: str, replicas: int, rows: int, steps: int) -> None:
    """What a process of `measured` does; prints a line of JSON."""
    import tensorflow as tf

    from tfheads import distribute

    none = strategy_name == "none"
    options = {"replicas": replicas, "quiet": True}
    strategy = tf.distribute.get_strategy() if none else distribute.strategy(strategy_name, **options)
    total = strategy.num_replicas_in_sync
    with strategy.scope():
        model = small_model()
        seconds = statistics.median(timed_steps(model, rows * total, steps)())
        result = {"seconds": seconds, "replicas": total, "parameters": 4 * model.count_params()}
        if (strategy_name, replicas) == ("mirrored", 2):
            result["summed"] = {parts: summed_bytes(small_model(parts), rows * total) for parts in (1, 2)}
        if distribute.is_chief():
            print("RESULT " + json.dumps(result), flush=True)


def measured(strategy_name: str, replicas: int, processes: int, rows: int, steps: int) -> dict:
    """A run in processes of its own."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    command = [sys.executable, "-m", "benchmarks.scaling", "--run", strategy_name, str(replicas)]
    command += ["--rows", str(rows), "--steps", str(steps)]
    started = []
    for index in range(processes):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("TF_CONFIG", None)
        if processes > 1:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes))
    outputs = [process.communicate() for process in started]
    line = next((line for line in outputs[0][0].splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(outputs[0][1])
    return json.loads(line.removeprefix("RESULT "))


def overheads(rows: int, rounds: int) -> dict[str, tuple[float, float]]:
    """What strategies of one replica add to a step's time, part of its median and of its minimum, by turns."""
    import tensorflow as tf

    from tfheads import distribute

    made = {
        "none": tf.distribute.get_strategy(),
        "one_device": distribute.strategy("one_device", quiet=True),
        "mirrored": distribute.strategy("mirrored", quiet=True),
    }
    runs, seconds = {}, {name: [] for name in made}
    for name, strategy in made.items():
        with strategy.scope():
            runs[name] = timed_steps(small_model(), rows, 1)
    for _ in range(rounds):
        for name, run in runs.items():
            with made[name].scope():
                seconds[name] += run()
    found = {name: (statistics.median(values), min(values)) for name, values in seconds.items()}
    return {name: tuple(a / b - 1 for a, b in zip(found[name], found["none"], strict=True)) for name in made}


def predicted(compute: float, summed: float, replicas: int, bandwidth: float, latency: float) -> float:
    """Seconds of a step: each replica computes, then a ring sums (2 (n - 1) / n of the bytes, 2 (n - 1) messages)."""
    return compute + 2 * (replicas - 1) / replicas * summed / bandwidth + 2 * (replicas - 1) * latency


def report(rows: int, steps: int) -> None:
    """Prints everything."""
    print(f"Load before: {os.getloadavg()[0]:.1f}. ", end="")
    print(f"GPT-2 with 4 layers of 256, rows of {TIME} tokens, {rows} rows on each replica, {os.cpu_count()} cores\n")
    print("| strategy | processes | replicas | step, ms | rows per second |\n|---|---|---|---|---|")
    found = {}
    for kind in KINDS:
        found[kind] = one = measured(*kind, rows, steps)
        rate = rows * one["replicas"] / one["seconds"]
        print(f"| {kind[0]} | {kind[2]} | {one['replicas']} | {1000 * one['seconds']:.1f} | {rate:.1f} |", flush=True)
    two = found["mirrored", 2, 1]
    print(f"\nParameters: {two['parameters']} bytes. Summed over replicas for an update:")
    for parts, total in two["summed"].items():
        print(f"- accumulation over {parts}: {total} bytes, {total / two['parameters']:.4f} of the parameters")
    print("\nOverhead of a strategy with one replica over none:")
    for name, (median, least) in overheads(rows, 3 * steps).items():
        print(f"- {name}: {100 * median:+.1f} % of the median, {100 * least:+.1f} % of the shortest step")
    print("\nPart of a step that is no waiting, by the model of cost (nothing overlaps, compute as on one replica):\n")
    print("| network | 8 replicas | 64 | 512 |\n|---|---|---|---|")
    compute = found["none", 1, 1]["seconds"]
    for name, bandwidth, latency in NETWORKS:
        parts = [compute / predicted(compute, two["summed"]["1"], count, bandwidth, latency) for count in (8, 64, 512)]
        print(f"| {name} | " + " | ".join(f"{100 * part:.1f} %" for part in parts) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--run", nargs=2, metavar=("STRATEGY", "REPLICAS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        one_run(given.run[0], int(given.run[1]), given.rows, given.steps)
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        report(given.rows, given.steps)

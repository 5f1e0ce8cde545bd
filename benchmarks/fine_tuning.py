"""Fine-tuning a pretrained BERT by the recipes and in PyTorch: quality and time of a step, side by side.

    python -m benchmarks.fine_tuning sst2 --model DIRECTORY --train train.tsv --evaluation dev.tsv --rows 8000
    python -m benchmarks.fine_tuning conll2003 --model DIRECTORY --train eng.train --evaluation eng.testa

Both start from the same weights, the new head's included, see the same batches in the same order, with AdamW, a linear
schedule, clipping at norm 1 and dropout 0.1. They take turns of a few steps, so that a noisy machine is noisy for both;
a ratio is the median of the ratios within the turns. Turns in which XLA compiles for a length that it has not seen are
left out for both. The peer is made by benchmarks/environments.py.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from tqdm import tqdm

from benchmarks.environments import TOP
from benchmarks.speed import Worker, start
from tfheads.recipes.arguments import TextClassificationArguments, TokenClassificationArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.text_classification import text_classification
from tfheads.recipes.token_classification import token_classification
from tfheads.recipes.training import TrainingRun


@dataclass(frozen=True)
class Task:
    """A task that both sides train.

    Attributes:
        arguments: the class of the recipe's arguments.
        prepare: arguments -> the recipe's run.
        flags: further ones of the recipe.
        measure: the result that counts.
    """

    arguments: type
    prepare: Callable[..., TrainingRun]
    flags: tuple[str, ...]
    measure: str


TASKS = {
    "sst2": Task(TextClassificationArguments, text_classification, ("--task_name", "sst2"), "accuracy"),
    "conll2003": Task(TokenClassificationArguments, token_classification, (), "f1"),
}


def flags_of(options: argparse.Namespace) -> list[str]:
    """The flags of the recipe, the same in both processes that use it."""
    flags = {
        "train_file": options.train,
        "validation_file": options.evaluation,
        "output_dir": options.folder / "output",
        "per_device_train_batch_size": options.batch,
        "per_device_eval_batch_size": 32,
        "num_train_epochs": 1,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "max_train_samples": options.rows or "none",
        "bucket_lengths": options.buckets,
        "save_strategy": "no",
    }
    switches = ["--do_train", "--do_eval", "--overwrite_output_dir"]
    given = [f"--{name}={value}" for name, value in flags.items() if name != "bucket_lengths"]
    buckets = ["--bucket_lengths", *map(str, options.buckets)] if options.buckets else []
    return [*TASKS[options.task].flags, *given, *buckets, *switches]


def evaluation_part(run: TrainingRun):
    """The evaluation of the only validation split."""
    return getattr(run.evaluation, "parts", {"": run.evaluation})[""]


def store(path: Path, batches) -> list[int]:
    """Writes batches for the peer; returns their lengths."""
    arrays, lengths = {}, []
    for number, batch in enumerate(batches):
        arrays |= {f"{number}:{name}": value.numpy() for name, value in batch.items()}
        lengths.append(batch["input_ids"].shape[1])
    np.savez(path, **arrays)
    return lengths


def prepare(options: argparse.Namespace) -> tuple[TrainingRun, list[int]]:
    """Writes what the peer needs; returns the recipe's run, to measure the peer's outputs, and the batches' lengths."""
    task = TASKS[options.task]
    run = task.prepare(parse(task.arguments, [*flags_of(options), "--model_name_or_path", str(options.model)]))
    run.model.save_pretrained(options.folder / "initial", tokenizer=run.tokenizer)
    lengths = store(options.folder / "train.npz", run.batches(0, 0).take(run.max_steps))
    source = evaluation_part(run).source
    store(options.folder / "evaluation.npz", source.batches(32, shuffle=False, drop_remainder=False))
    settings = {"class": type(run.model).__name__, "seed": options.seed, "learning_rate": options.learning_rate}
    (options.folder / "settings.json").write_text(json.dumps(settings))
    return run, lengths


def peer_results(run: TrainingRun, folder: Path) -> dict[str, float]:
    """The measures of the logits that the peer wrote."""
    part = evaluation_part(run)
    order = part.source.row_order(32)
    with np.load(folder / "logits.npz") as file:
        logits = [file[str(number)] for number in range(len(file.files))]
    width = max(part.shape[1] for part in logits) if logits[0].ndim == 3 else None
    rows = [row if width is None else np.pad(row, ((0, width - len(row)), (0, 0))) for batch in logits for row in batch]
    in_order = np.empty((len(rows), *rows[0].shape), "float32")
    in_order[order] = rows
    return part.measures({"logits": in_order})


def take_turns(workers: list[Worker], lengths: list[int], steps: int) -> list[int]:
    """Lets the workers train to the end; returns the turns in which nothing was compiled."""
    seen, warm = set(), []
    turns = range(-(-len(lengths) // steps))
    for turn in tqdm(turns, desc="Fine-tuning", unit="turn"):
        in_turn = set(lengths[turn * steps : (turn + 1) * steps])
        if in_turn <= seen:
            warm.append(turn)
        seen |= in_turn
        for worker in workers:
            worker.measure()
    return warm


def table(workers: list[Worker], warm: list[int], steps: int, results: dict[str, float], measure: str) -> str:
    """A row for each side."""
    own = workers[0]
    lines = [
        f"| | {measure} | median s / step | tfheads / it | first turn s | peak memory GB |",
        "|---|---|---|---|---|---|",
    ]
    for worker in workers:
        median = statistics.median(worker.seconds[turn] for turn in warm) / steps
        ratio = statistics.median(own.seconds[turn] / worker.seconds[turn] for turn in warm)
        memory = worker.summary["peak_memory_gigabytes"]
        lines.append(
            f"| {worker.name} | {results[worker.name]:.4f} | {median:.3f} | {ratio:.2f} | {worker.seconds[0]:.1f} "
            f"| {memory:.1f} |"
        )
    return "\n".join(lines)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", type=Path, required=True, help="directory of a pretrained BERT")
    parser.add_argument("--train", type=Path, required=True, help="file to train on")
    parser.add_argument("--evaluation", type=Path, required=True, help="file to evaluate on")
    parser.add_argument("--rows", type=int, help="how many rows to train on; default: all")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--buckets", type=int, nargs="+", default=[], help="bucket_lengths of the recipe")
    parser.add_argument("--folder", type=Path, help="where everything is written; default: runs/fine_tuning/TASK")
    options = parser.parse_args(arguments)
    options.folder = (options.folder or TOP / "runs" / "fine_tuning" / options.task).resolve()
    for name in ("model", "train", "evaluation"):
        setattr(options, name, getattr(options, name).resolve())
    return options


def main() -> None:
    """Trains both sides and prints the table."""
    options = options_of()
    options.folder.mkdir(parents=True, exist_ok=True)
    run, lengths = prepare(options)
    own = [f"--task={options.task}", f"--folder={options.folder}", f"--steps={options.steps}", *flags_of(options)]
    peer = [f"--folder={options.folder}", f"--steps={options.steps}"]
    workers = [
        start("tfheads", "project", "fine_tuning_tfheads", own, options.folder),
        start("PyTorch", "torch", "fine_tuning_pytorch", peer, options.folder),
    ]
    try:
        for worker in workers:
            worker.read("ready")
        warm = take_turns(workers, lengths, options.steps)
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
    measure = TASKS[options.task].measure
    found = workers[0].summary["results"][f"eval_{measure}"]
    results = {"tfheads": found, "PyTorch": peer_results(run, options.folder)[measure]}
    counted = {length: lengths.count(length) for length in sorted(set(lengths))}
    print(f"{len(lengths)} steps of {options.batch} rows, steps by length {counted}; {len(warm)} warm turns")
    print(table(workers, warm, options.steps, results, measure))


if __name__ == "__main__":
    sys.exit(main())

"""Speed of exported models beside PyTorch and beside `model.generate`, as ratios, in one run.

    python -m benchmarks.serving                           # BERT-base classifies, GPT-2 124 M writes, first requests
    python -m benchmarks.serving --tasks classify_1 --rounds 9
    python -m benchmarks.serving --texts FILE --classifier_tokenizer DIRECTORY --generator_tokenizer DIRECTORY
    python -m benchmarks.serving --tiny --rounds 2         # tries the script in a minute or two

Every peer is a process of its own, they take turns, and a ratio is the median of the ratios within the rounds, as in
benchmarks/speed.py. All read the same checkpoints, and must give the same answers. The SavedModel is called in a
process that knows only tensorflow and tensorflow_text. Weights are random, texts are of 4 to 120 words unless given.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from benchmarks.environments import TOP, interpreter
from benchmarks.speed import Worker, median_ratio, run_together

OWN = "SavedModel"
CLASSIFIERS = {
    OWN: ("project", "served", ()),
    "PyTorch, pipeline": ("torch", "pytorch_pipeline", ()),
    "PyTorch, model and tokenizer": ("torch", "pytorch_texts", ()),
}
GENERATORS = {
    OWN: ("project", "served", ()),
    "model.generate": ("project", "tfheads_texts", ()),
    "PyTorch, model and tokenizer": ("torch", "pytorch_texts", ()),
}
TASKS = {
    "classify_1": ("classify_texts", 1, CLASSIFIERS),
    "classify_32": ("classify_texts", 32, CLASSIFIERS),
    "generate_1": ("continue_texts", 1, GENERATORS),
    "generate_8": ("continue_texts", 8, GENERATORS),
}
"""Name -> what is measured, texts in a request, peers."""

FIRST = "first_requests"


def table(workers: dict[str, Worker]) -> str:
    """The markdown table of one task."""
    lines = ["| | median s | min s | SavedModel / it | peak memory GB |", "|---|---|---|---|---|"]
    own = workers.get(OWN)
    for name, worker in workers.items():
        ratio = f"{median_ratio(own.seconds, worker.seconds):.2f}" if own else ""
        memory = worker.summary["peak_memory_gigabytes"]
        lines.append(
            f"| {name} | {statistics.median(worker.seconds):.4g} | {min(worker.seconds):.4g} | {ratio} | {memory:.1f} |"
        )
    return "\n".join(lines)


def check_answers(task: str, workers: dict[str, Worker]) -> None:
    """Requires that the peers gave the same answers, of which each repeat sends a sum.

    Raises:
        AssertionError: they differ.
    """
    values = {name: worker.values[0] for name, worker in workers.items()}
    reference = next(iter(values.values()))
    if any(abs(value - reference) > 1e-3 * max(1.0, abs(reference)) for value in values.values()):
        raise AssertionError(f"the peers of {task} gave different answers: {values}")


def first_requests(folder: Path, rounds: int) -> str:
    """The table of the first requests to both models, with and without warm-up."""
    lines = ["| | first request s | second request s | warm-up s |", "|---|---|---|---|"]
    ways = {"without warm-up": [], "with warm-up": ["--warm-up"]}
    measured = {(model, way): [] for model in ("classifier", "generator") for way in ways}
    for _ in tqdm(range(rounds), desc=FIRST, unit="round", leave=False):
        for model, way in measured:
            command = [str(interpreter("project")), "-m", "benchmarks.peers.first_requests"]
            command += [str(folder / model / "served/1"), *ways[way]]
            done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
            measured[model, way].append(json.loads(done.stdout.splitlines()[-1]))
    for (model, way), results in measured.items():
        seconds = {name: statistics.median(result[name] for result in results) for name in results[0]}
        warm_up = f"{seconds['warm-up']:.2f}" if "warm-up" in seconds else ""
        lines.append(f"| {model}, {way} | {seconds['first']:.3f} | {seconds['second']:.3f} | {warm_up} |")
    return "\n".join(lines)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*TASKS, FIRST)
    parser.add_argument("--tasks", nargs="+", choices=names, default=names, metavar="NAME", help=f"of: {names}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--texts", help="a file of lines, of which the first 32 are sent")
    parser.add_argument("--classifier_tokenizer", help="of BERT's kind; trained on the texts if it is not given")
    parser.add_argument("--generator_tokenizer", help="of GPT-2's kind, likewise")
    parser.add_argument("--folder", type=Path, help="where the models are made; kept if it is there (runs/serving)")
    parser.add_argument("--logs", type=Path, default=TOP / "runs" / "benchmarks", help="folder for the peers' messages")
    options = parser.parse_args(arguments)
    options.folder = options.folder or TOP / "runs" / ("serving_tiny" if options.tiny else "serving")
    return options


def make_models(options: argparse.Namespace) -> None:
    """Makes the models in a process of their own, unless they are there."""
    if (options.folder / "generator/served/manifest.json").exists():
        return
    command = [str(interpreter("project")), "-m", "benchmarks.peers.serving_models", str(options.folder)]
    command += ["--tiny"] if options.tiny else []
    for name in ("texts", "classifier_tokenizer", "generator_tokenizer"):
        command += [f"--{name}={getattr(options, name)}"] if getattr(options, name) else []
    with (options.logs / "serving_models.log").open("w") as log:
        subprocess.run(command, cwd=TOP, stdout=log, stderr=log, check=True)


def main() -> None:
    """Measures and prints."""
    options = options_of()
    options.logs.mkdir(parents=True, exist_ok=True)
    make_models(options)
    for name in options.tasks:
        if name == FIRST:
            print(f"### {name}\n\n{first_requests(options.folder, min(options.rounds, 3))}\n", flush=True)
            continue
        task, batch, peers = TASKS[name]
        arguments = [f"--task={task}", f"--batch={batch}", f"--folder={options.folder}", "--new-tokens=64"]
        workers = run_together(peers, arguments, options, name)
        print(f"### {name}\n\n{table(workers)}\n", flush=True)
        check_answers(name, workers)


if __name__ == "__main__":
    sys.exit(main())

"""Speed of tfheads and its peers on this machine, as ratios, in one run.

    python -m benchmarks.speed                                     # GPT-2 124 M: training step, forward, generation
    python -m benchmarks.speed --tasks bert_train_step --rounds 7
    python -m benchmarks.speed --tasks llama_train_step llama_forward llama_generate_1 --peers tfheads PyTorch
    python -m benchmarks.speed --tiny --rounds 2                   # tries the script in a minute or two

Every peer is a process of its own that waits between its turns; the turns go round (A B C A B C ...), so that a noisy
machine is noisy for all, and a ratio is the median of the ratios within the rounds. The first result is the first call:
tracing, compiling and one run. The limit is 6 (training) or 2 (forward) operations for each parameter and token over
the best float32 matrix rate that was measured in this run, or the weights read once for each new token over the best
memory rate. The environments of the peers are made by benchmarks/environments.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from benchmarks.environments import TOP, interpreter
from benchmarks.peers.shapes import ENCODERS, SHAPES

PEERS = {
    "tfheads": ("project", "tfheads", ()),
    "PyTorch": ("torch", "pytorch", ()),
    "PyTorch compiled": ("torch", "pytorch", ("--compiled",)),
    "transformers 4.57 TF": ("hftf", "transformers_tf", ()),
    "KerasHub": ("project", "keras_hub", ()),
}
"""Name -> environment, module of benchmarks/peers, further arguments."""

DEFAULT_PEERS = ("tfheads", "PyTorch", "transformers 4.57 TF", "KerasHub")

WORK = {
    "train_step": {"task": "train_step", "batch": 4, "length": 128},
    "forward": {"task": "forward", "batch": 4, "length": 128},
    "generate_1": {"task": "generate", "batch": 1, "length": 32},
    "generate_8": {"task": "generate", "batch": 8, "length": 32},
}
TASKS = {
    work if model == "gpt2" else f"{model}_{work}": {"model": model, **task}
    for model in SHAPES
    for work, task in WORK.items()
    if not (model in ENCODERS and task["task"] == "generate")
}
"""Name -> what is measured; GPT-2's have the name of the work alone."""

DEFAULT_TASKS = ("train_step", "forward", "generate_1", "generate_8")

NEW_TOKENS = 64


@dataclass
class Worker:
    """A peer's process, measured on request."""

    name: str
    process: subprocess.Popen
    log: Path
    seconds: list[float] = field(default_factory=list)
    values: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)

    def read(self, key: str) -> dict:
        """The next line of the process that is JSON and holds `key`.

        Raises:
            RuntimeError: the process ended.
        """
        for line in self.process.stdout:
            if line.startswith("{"):
                entries = json.loads(line)
                if key in entries:
                    return entries
        self.process.wait()
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{self.name} ended with code {self.process.returncode}: {' '.join(last)} (see {self.log})")

    def measure(self) -> float:
        """One repeat; its seconds."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self.read("seconds")
        self.seconds.append(answer["seconds"])
        self.values.append(answer["value"])
        return answer["seconds"]

    def finish(self) -> None:
        """Ends the process and keeps its summary."""
        self.process.stdin.close()
        self.summary = self.read("peak_memory_gigabytes")
        self.process.wait()


def start(name: str, environment: str, module: str, arguments: list[str], folder: Path) -> Worker:
    """Starts a peer; it builds, compiles and warms up until `read("ready")` returns."""
    log = folder / f"{module}.log"
    command = [str(interpreter(environment)), "-m", f"benchmarks.peers.{module}", "--on-request", *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    return Worker(name, process, log)


def measure(workers: list[Worker], rounds: int, title: str) -> None:
    """Lets the workers take turns."""
    for _ in tqdm(range(rounds), desc=title, unit="round", leave=False):
        for worker in workers:
            worker.measure()


def run_together(wanted: dict, arguments: list[str], options: argparse.Namespace, title: str) -> dict[str, Worker]:
    """Starts the wanted peers one after another, measures them in turns, ends them; one that fails is left out."""
    workers, ready = [], []
    try:
        for name, (environment, module, further) in tqdm(wanted.items(), desc=f"{title}: start", leave=False):
            worker = start(name, environment, module, [*arguments, *further], options.logs)
            workers.append(worker)
            try:
                worker.read("ready")
                ready.append(worker)
            except RuntimeError as error:
                print(f"{title}: left out, {error}", file=sys.stderr)
        measure(ready, options.rounds, title)
        for worker in ready:
            worker.finish()
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
    return {worker.name: worker for worker in ready}


def limits(options: argparse.Namespace) -> dict[str, float]:
    """What the machine reaches: medians over the rounds, by library."""
    wanted = {
        "TensorFlow": ("project", "limits_tensorflow", ()),
        "PyTorch": ("torch", "limits_pytorch", ()),
    }
    arguments = ["--task", "limits", *(["--tiny"] if options.tiny else [])]
    workers = run_together(wanted, arguments, options, "limits")
    if len(workers) < len(wanted):
        raise RuntimeError(f"the machine's limits could not be measured: see the messages in {options.logs}")
    return {
        name: statistics.median(value[name] for value in worker.values)
        for worker in workers.values()
        for name in worker.values[0]
    }


def limit_seconds(task: dict, parameters: int, reached: dict[str, float]) -> float:
    """The time that the machine's limits allow for one repeat."""
    matrix_rate = max(rate for name, rate in reached.items() if "GFLOP" in name) * 1e9
    memory_rate = max(rate for name, rate in reached.items() if "GB/s" in name) * 1e9
    if task["task"] == "generate":
        return NEW_TOKENS * 4 * parameters / memory_rate
    operations = 6 if task["task"] == "train_step" else 2
    return operations * parameters * task["batch"] * task["length"] / matrix_rate


def table(task: dict, workers: dict[str, Worker], reached: dict[str, float]) -> str:
    """The markdown table of one task."""
    own = workers.get("tfheads")
    lines = [
        "| | median s | min s | tfheads / it | first result s | peak memory GB | of the limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, worker in workers.items():
        ratio = "" if own is None else f"{median_ratio(own.seconds, worker.seconds):.2f}"
        median = statistics.median(worker.seconds)
        share = limit_seconds(task, worker.summary["parameters"], reached) / median
        lines.append(
            f"| {name} | {median:.4g} | {min(worker.seconds):.4g} | {ratio} "
            f"| {worker.summary['first_result_seconds']:.1f} | {worker.summary['peak_memory_gigabytes']:.1f} "
            f"| {share:.0%} |"
        )
    return "\n".join(lines)


def median_ratio(own: list[float], other: list[float]) -> float:
    """The median over the rounds of own time over the other's."""
    return statistics.median(a / b for a, b in zip(own, other, strict=True))


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    some = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--tasks", **some, choices=TASKS, default=DEFAULT_TASKS, help=f"of: {', '.join(TASKS)}")
    parser.add_argument("--peers", **some, choices=PEERS, default=DEFAULT_PEERS, help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.1, help="all dropout rates of the training steps")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--logs", type=Path, default=TOP / "runs" / "benchmarks", help="folder for the peers' messages")
    parser.add_argument("--output", type=Path, help="a markdown file to write besides standard output")
    return parser.parse_args(arguments)


def main() -> None:
    """Measures and prints."""
    options = options_of()
    options.logs.mkdir(parents=True, exist_ok=True)
    sections = []
    reached = limits(options)
    for name in options.tasks:
        task = TASKS[name]
        arguments = [f"--{key}={value}" for key, value in task.items()]
        arguments += [f"--dropout={options.dropout}", f"--new-tokens={NEW_TOKENS}"]
        arguments += ["--tiny"] if options.tiny else []
        workers = run_together({peer: PEERS[peer] for peer in options.peers}, arguments, options, name)
        described = f"{task['model']}, {task['task']}, {task['batch']} x {task['length']}"
        described += f" + {NEW_TOKENS}" if task["task"] == "generate" else ""
        sections.append(f"### {described}\n\n{table(task, workers, reached)}\n")
        print(sections[-1], flush=True)
    rates = "\n".join(f"| {name} | {rate:.1f} |" for name, rate in reached.items())
    sections.append(f"### Limits of this machine, measured in the same run\n\n| | |\n|---|---|\n{rates}\n")
    print(sections[-1])
    if options.output:
        command = " ".join(["python -m benchmarks.speed", *sys.argv[1:]])
        options.output.write_text(f"Made by `{command}`.\n\n" + "\n".join(sections))


if __name__ == "__main__":
    main()

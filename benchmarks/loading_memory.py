"""Peak memory of `from_pretrained` above what was in use before, as a multiple of the weights.

    python -m benchmarks.loading_memory            # GPT-2 124 M and BERT-base, half a minute
    python -m benchmarks.loading_memory --tiny

The checkpoints hold zeros. One new process loads them all, after a small one that sets up what every first load does;
no model is let go, so that none is loaded into the memory of another. Linux only: the kernel counts the peak.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ml_dtypes
import numpy as np
import transformers

import tfheads
from benchmarks.environments import TOP
from benchmarks.peers.shapes import SHAPES
from tfheads.checkpoints.safetensors_files import TensorSource, write_shards
from tfheads.checkpoints.saving import tensor_sources
from tfheads.layers.part import weights_follow

REQUIRED = 1.3


@dataclass(frozen=True)
class Case:
    """A checkpoint: a model of `SHAPES` with some config values of its own, a stored dtype, the size of its files."""

    model: str
    changes: dict = field(default_factory=dict)
    stored: type = np.float32
    max_shard_size: str = "5GB"


UNTIED = {"tie_word_embeddings": False}
CASES = {
    "GPT-2": Case("gpt2"),
    "GPT-2, untied": Case("gpt2", UNTIED),
    "GPT-2, untied, stored in bfloat16 and shards": Case("gpt2", UNTIED, ml_dtypes.bfloat16, "20MB"),
    "BERT": Case("bert"),
}
TINY = {
    "gpt2": {"n_embd": 256, "n_head": 8, "n_layer": 2},
    "bert": {"hidden_size": 256, "num_attention_heads": 8, "num_hidden_layers": 4},
}
"""Not as tiny as elsewhere: what loading needs besides the weights, some MB, must not be most of them."""


def write(case: Case, folder: Path, sizes: dict) -> None:
    """Writes a checkpoint of zeros; `sizes` are config values."""
    shape = SHAPES[case.model]
    config = getattr(transformers, shape.config)(**{**shape.arguments(False, 0.0), **sizes, **case.changes})
    config.architectures = [shape.model]
    with weights_follow():
        outline = getattr(tfheads, shape.model)(config)
    folder.mkdir()
    zeros = [
        TensorSource(one.name, one.shape, np.dtype(case.stored), lambda one=one: np.zeros(one.shape, case.stored))
        for one in tensor_sources(outline)
    ]
    write_shards(zeros, folder, case.max_shard_size)
    (folder / "config.json").write_text(config.to_json_string())


def memory(of: str) -> int:
    """Bytes of this process: `VmRSS` of now, or `VmHWM`, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(of))


def print_peaks(folders: list[str]) -> None:
    """Loads checkpoints one after another in float32; prints bytes of the weights and of the peak for each."""
    models = []
    for folder in folders:
        cls = getattr(tfheads, transformers.AutoConfig.from_pretrained(folder).architectures[0])
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        models.append(cls.from_pretrained(folder, dtype="float32"))
        peak = memory("VmHWM") - before
        print(sum(4 * int(np.prod(weight.shape)) for weight in models[-1].trainable_variables), peak)


def measured(tiny: bool) -> dict[str, tuple[int, int]]:
    """Case -> bytes of its weights and of the peak while they were loaded, by a new process.

    Raises:
        RuntimeError: the process failed; its messages have been shown.
    """
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(index)) for index in range(len(CASES) + 1)]
        write(Case("gpt2"), folders[0], SHAPES["gpt2"].tiny)
        for case, folder in zip(CASES.values(), folders[1:], strict=True):
            write(case, folder, TINY[case.model] if tiny else {})
        command = [sys.executable, "-m", "benchmarks.loading_memory", "--measure", *map(str, folders)]
        done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"loading failed: {' '.join(command)}")
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    return dict(zip(CASES, rows[1:], strict=True))


def main() -> None:
    """Prints a markdown table; ends with code 1 when a peak is too high."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="smaller models, to try the script")
    parser.add_argument("--measure", nargs="+", metavar="FOLDER", help="load these in this process")
    options = parser.parse_args()
    if options.measure:
        print_peaks(options.measure)
        return
    print("| | weights, MB | peak / weights |\n|---|---|---|")
    highest = 0.0
    for case, (weights, peak) in measured(options.tiny).items():
        highest = max(highest, peak / weights)
        print(f"| {case} | {weights / 1e6:.0f} | {peak / weights:.2f} |")
    if not highest <= REQUIRED:
        sys.exit(f"the highest peak, {highest:.2f} times the weights, is above {REQUIRED}")


if __name__ == "__main__":
    main()

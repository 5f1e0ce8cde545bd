"""The way back to PyTorch: what tfheads saves, loaded by the class of the same name in PyTorch's transformers.

    python -m benchmarks.way_back                  # every class of every family, some minutes
    python -m benchmarks.way_back gpt2 bert        # of these families

The models are the tiny ones of tests/fixtures with random weights. PyTorch must miss no tensor, find none that it does
not expect and none of another shape, and give the same outputs and losses within 1e-5. The environment of PyTorch is
made by benchmarks/environments.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from benchmarks.environments import TOP, interpreter
from tests.fixtures import reference
from tests.rebuilt_models import rebuilt

REQUIRED = 1e-5
LOSSES = ("loss", "mc_loss")


@dataclass(frozen=True)
class Case:
    """A model of tfheads and batches of numpy arrays, labels included, to compare its outputs for."""

    name: str
    model: object
    batches: list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Comparison:
    """What came back from PyTorch.

    Attributes:
        class_name: of the model, in both libraries.
        misfits: what transformers missed, did not expect, found of another shape or complained about.
        outputs: largest absolute difference of an output at real positions.
        losses: of a loss.
    """

    class_name: str
    misfits: list[str]
    outputs: float
    losses: float


def through_pytorch(cases: Iterable[Case]) -> dict[str, Comparison]:
    """Saves each model, lets PyTorch load them, compares; by the cases' names.

    Raises:
        RuntimeError: PyTorch's side failed; its messages have been shown.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, classes, ours = Path(name), {}, {}
        for case in cases:
            own = folder / case.name.replace("/", ".")
            case.model.save_pretrained(own / "checkpoint")
            for index, batch in enumerate(case.batches):
                np.savez(own / f"inputs-{index}.npz", **batch)
            classes[case.name] = type(case.model).__name__
            ours[case.name] = [(batch, outputs(case.model, batch)) for batch in case.batches]
        load_in_pytorch(folder)
        return {case: compared(classes[case], folder / case.replace("/", "."), ours[case]) for case in classes}


def load_in_pytorch(folder: Path) -> None:
    """Runs benchmarks/peers/pytorch_way_back.py."""
    command = [str(interpreter("torch")), "-m", "benchmarks.peers.pytorch_way_back", str(folder)]
    if subprocess.run(command, cwd=TOP).returncode:
        raise RuntimeError(f"PyTorch's side failed: {' '.join(command)}")


def outputs(model: Callable, batch: dict) -> dict[str, np.ndarray]:
    """What a model of tfheads, or a function of its, gives for a batch."""
    return {name: np.asarray(value) for name, value in model(batch).items() if tf.is_tensor(value)}


def compared(class_name: str, folder: Path, ours: list[tuple[dict, dict]]) -> Comparison:
    """Reads what PyTorch's side wrote into the folder of a case, and compares it with pairs of inputs and outputs."""
    misfits = [f"{kind} {key}" for kind, keys in json.loads((folder / "keys.json").read_text()).items() for key in keys]
    apart: dict[bool, list[float]] = {True: [0.0], False: [0.0]}
    for index, (batch, own) in enumerate(ours):
        with np.load(folder / f"outputs-{index}.npz") as theirs:
            for name, value in own.items():
                apart[name in LOSSES].append(difference(value, theirs[name], batch.get("attention_mask")))
    return Comparison(class_name, misfits, largest(apart[False]), largest(apart[True]))


def largest(numbers: Iterable[float]) -> float:
    """The largest number; not a number if one is not."""
    return float(np.max(list(numbers)))


def difference(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray | None) -> float:
    """The largest absolute difference of two outputs, of outputs of tokens `[batch, time, ...]` at real tokens.

    It is infinite if they have different shapes.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    apart = np.abs(ours - theirs)
    if mask is not None and apart.shape[: mask.ndim] == mask.shape:
        apart = apart[mask == 1]
    return float(np.max(apart))


def tiny_models(families: list[str]) -> Iterator[Case]:
    """The models of tests/fixtures, those of some families if any are named."""
    names = [name for name in reference.names() if not families or name.split("/")[0] in families]
    for name in tqdm(names, desc="saving", leave=False):
        record = reference.load(name)
        batches = [{key: np.array(value) for key, value in run["inputs"].items()} for run in record["forward"].values()]
        for batch in batches:
            batch.update({key: value.astype("float32") for key, value in batch.items() if value.dtype.kind == "f"})
        with warnings.catch_warnings(action="ignore"):  # that a causal model sees the future, where that is the case
            model = rebuilt(record["class"], record["config"])
        yield Case(name, model, batches)


def main() -> None:
    """Prints a markdown table; ends with code 1 when something did not fit or a difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="model types; all if none is named")
    families, known = parser.parse_args().families, {name.split("/")[0] for name in reference.names()}
    if not known.issuperset(families):
        parser.error(f"families must be among {', '.join(sorted(known))}, got {', '.join(families)}")
    found = through_pytorch(tiny_models(families))
    print("| family | classes | models | keys that do not fit | outputs | losses |\n|---|---|---|---|---|---|")
    groups = {
        family: [one for name, one in found.items() if name.split("/")[0] == family]
        for family in dict.fromkeys(name.split("/")[0] for name in found)
    }
    for family, ones in {**groups, "all": list(found.values())}.items():
        counts = (len({one.class_name for one in ones}), len(ones), sum(len(one.misfits) for one in ones))
        worst = (f"{largest(getattr(one, part) for one in ones):.1e}" for part in ("outputs", "losses"))
        print(f"| {family} | " + " | ".join(map(str, (*counts, *worst))) + " |")
    wrong = [
        f"{name} ({one.class_name}): {'; '.join([*one.misfits, f'outputs {one.outputs:.1e}, losses {one.losses:.1e}'])}"
        for name, one in found.items()
        if one.misfits or not largest((one.outputs, one.losses)) <= REQUIRED
    ]
    if wrong:
        sys.exit("\n".join(["these did not come back as they were:", *wrong]))


if __name__ == "__main__":
    main()

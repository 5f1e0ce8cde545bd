"""Which features give the numbers of one device under which strategy: python -m benchmarks.distribution_matrix [CASE]

Each strategy runs in processes of its own, see `tests.distribution_cases`. An entry is the largest difference from one
device, relative to values above 1: of losses, weights after 20 steps, metrics, predictions.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tests.distribution_processes import ALONE, BOTH, MIRRORED, WORKERS, Processes, differences

FEATURES = {
    "plain": "XLA, tied embeddings, uneven labels and masks, clipping, replicas with fewer rows or none, perplexity",
    "accumulated": "gradient accumulation, XLA",
    "several_steps": "several steps in one execution, the last one cut short",
    "averaged": "moving averages of the weights, AdamW with decay and a schedule",
    "scaled": "float16 with a dynamic loss scale, XLA: also the scale and how many updates it left out",
    "classified": "accuracy and another measure of Keras, labels of -100, predict",
    "keras_loss": "a Keras loss with weights of rows, XLA, predict",
    "arrays": "arrays, validation, one batch at a time, generate",
    "recipe": "a recipe: evaluations, best model, states; one run in W&B and TensorBoard and one upload of all workers",
    "measured": "recipes of answers and names: exact match, F1, precision, recall, accuracy",
}


def main(cases: list[str]) -> None:
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        alone = Processes(ALONE, Path(folder, "one"), cases)
        if alone.wait() != [0]:
            raise SystemExit(alone.log())
        for kind in tqdm([*MIRRORED, *WORKERS, *BOTH], desc="Strategies"):
            processes = Processes(kind, Path(folder, kind[0].replace(" ", "_")), cases)
            if any(processes.wait()):
                print(processes.log(), file=sys.stderr)
            columns[kind[0]] = [entry(processes, alone, case) for case in cases]
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for case, *entries in zip(cases, *columns.values(), strict=True):
        print(f"| {FEATURES[case]} | " + " | ".join(entries) + " |")


def entry(processes: Processes, alone: Processes, case: str) -> str:
    """The largest difference of any worker, or that there is none to compare."""
    try:
        gaps = [differences(found, alone.found(case)[0], -1.0) for found in processes.found(case)]
    except FileNotFoundError:
        return "failed"
    return f"{max(max(gap.values()) for gap in gaps):.0e}" if gaps else str(np.nan)


if __name__ == "__main__":
    main(sys.argv[1:] or list(FEATURES))

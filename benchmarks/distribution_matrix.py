"""Which features give the numbers of one device under which strategy: python -m benchmarks.distribution_matrix [CASE]

Each strategy runs in processes of its own, see `tests.distribution_cases`. An entry is the largest difference from one
device, relative to values above 1: of losses, weights after 20 steps, metrics, predictions.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.distribution_processes import ALONE, BOTH, MIRRORED, WORKERS, Processes, differences

FEATURES = {
    "plain": "XLA, tied embeddings, uneven labels and masks, clipping, partial and empty parts of batches",
    "accumulated": "gradient accumulation",
    "several_steps": "steps_per_execution, a cut last execution",
    "averaged": "moving averages of the weights (use_ema), AdamW with decay",
    "scaled": "float16 with a dynamic loss scale",
    "classified": "accuracy and other measures of Keras, labels of -100",
    "keras_loss": "a Keras loss with weights of rows",
    "arrays": "arrays, validation, train_on_batch, test_on_batch, generate",
    "recipe": "a recipe: evaluations, best model, states; one run in W&B and TensorBoard, one upload, of all workers",
    "measured": "recipes' measures: exact match, F1, precision, recall, accuracy",
}


def main(cases: list[str]) -> None:
    print("| strategy | " + " | ".join(cases) + " | seconds |\n|---|" + "---|" * (len(cases) + 1), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        alone = Processes(ALONE, Path(folder, "one"), cases)
        if alone.wait() != [0]:
            raise SystemExit(alone.log())
        for kind in [*MIRRORED, *WORKERS, *BOTH]:
            began = time.monotonic()
            processes = Processes(kind, Path(folder, kind[0].replace(" ", "_")), cases)
            codes, seconds = processes.wait(), time.monotonic() - began
            entries = [entry(processes, alone, case) for case in cases]
            print(f"| {kind[0]} | " + " | ".join(entries) + f" | {seconds:.0f} |", flush=True)
            if any(codes):
                print(processes.log(), file=sys.stderr)
    print("\n" + "\n".join(f"- {case}: {FEATURES[case]}" for case in cases))


def entry(processes: Processes, alone: Processes, case: str) -> str:
    """The largest difference of any worker, or that there is none to compare."""
    try:
        gaps = [differences(found, alone.found(case)[0], -1.0) for found in processes.found(case)]
    except FileNotFoundError:
        return "failed"
    return f"{max(max(gap.values()) for gap in gaps):.0e}" if gaps else str(np.nan)


if __name__ == "__main__":
    main(sys.argv[1:] or list(FEATURES))

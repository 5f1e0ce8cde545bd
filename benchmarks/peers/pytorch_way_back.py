"""PyTorch's side of the way back: loads what tfheads saved, says what did not fit, and gives its outputs.

    python -m benchmarks.peers.pytorch_way_back FOLDER

For each FOLDER/<name>/checkpoint it writes keys.json, what transformers reports of loading the class that config.json
names, and beside each inputs-<number>.npz an outputs-<number>.npz with all tensors that the model returned.
"""

import inspect
import json
import os
import sys
from pathlib import Path

# As in pytorch.py: threads that spin while they wait are very slow on a machine that is not idle.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers

KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def loaded(checkpoint: Path) -> tuple[transformers.PreTrainedModel, dict[str, list[str]]]:
    """The model in evaluation mode, and what did not fit."""
    (name,) = json.loads((checkpoint / "config.json").read_text())["architectures"]
    model, report = getattr(transformers, name).from_pretrained(
        checkpoint, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), {key: sorted(map(str, report[key])) for key in KEYS}


@torch.inference_mode()
def outputs(model: transformers.PreTrainedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model returns for a batch, its cache left out."""
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    result = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}, **options)
    return {name: value.numpy() for name, value in result.items() if isinstance(value, torch.Tensor)}


def main() -> None:
    """Goes through all checkpoints of the folder that is named."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for checkpoint in sorted(Path(sys.argv[1]).glob("*/checkpoint")):
        model, report = loaded(checkpoint)
        (checkpoint.parent / "keys.json").write_text(json.dumps(report))
        for path in checkpoint.parent.glob("inputs-*.npz"):
            with np.load(path) as arrays:
                found = outputs(model, dict(arrays))
            np.savez(path.with_name(path.name.replace("inputs", "outputs")), **found)


if __name__ == "__main__":
    main()

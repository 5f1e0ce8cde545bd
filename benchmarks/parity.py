"""Logits of GPT-2 124 M and BERT-base with random weights: tfheads against PyTorch.

    python -m benchmarks.parity            # real sizes, two minutes
    python -m benchmarks.parity --tiny

PyTorch saves a checkpoint, tfheads loads it; a right-padded batch goes through both. Largest absolute differences over
the real positions, in eager mode, in a graph and under XLA, must stay within 1e-4. The environment of PyTorch is made
by benchmarks/environments.py.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import tfheads
from benchmarks.references import reference

REQUIRED = 1e-4


def differences(model_name: str, tiny: bool) -> dict[str, float]:
    """Mode -> largest absolute difference of the logits at real positions."""
    model_class = {"gpt2": tfheads.GPT2LMHeadModel, "bert": tfheads.BertForMaskedLM}[model_name]
    with tempfile.TemporaryDirectory() as folder:
        stored = reference(Path(folder), model=model_name, tiny=tiny)
        model = model_class.from_pretrained(Path(folder) / "checkpoint")
    inputs = {name: tf.constant(stored[name], tf.int32) for name in ("input_ids", "attention_mask")}

    def forward(given):
        return model(given, training=False)["logits"]

    modes = {"eager": forward, "graph": tf.function(forward), "XLA": tf.function(forward, jit_compile=True)}
    real = stored["attention_mask"] == 1
    return {
        mode: float(np.abs(function(inputs).numpy() - stored["logits"])[real].max()) for mode, function in modes.items()
    }


def main() -> None:
    """Prints a markdown table; ends with code 1 when a difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    tiny = parser.parse_args().tiny
    print("| largest difference of logits | eager | graph | XLA |\n|---|---|---|---|")
    worst = 0.0
    for model_name, title in (("gpt2", "GPT-2 124 M"), ("bert", "BERT-base")):
        found = differences(model_name, tiny)
        worst = max(worst, *found.values())
        print(f"| {title}{', tiny' if tiny else ''} | " + " | ".join(f"{value:.1e}" for value in found.values()) + " |")
    if not worst <= REQUIRED:
        sys.exit(f"the largest difference {worst:.1e} is above {REQUIRED}")


if __name__ == "__main__":
    main()

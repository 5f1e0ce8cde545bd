"""GPT-2 124 M and BERT-base with random weights, tfheads beside PyTorch, both ways.

    python -m benchmarks.parity            # real sizes, some minutes
    python -m benchmarks.parity --tiny

There: PyTorch saves a checkpoint, tfheads loads it; a right-padded batch with labels goes through both, in tfheads in
eager mode, in a graph and under XLA. Back: tfheads saves one, PyTorch loads it, and must miss no tensor and find none
that it does not expect. The largest absolute differences of logits, over the real positions, and of losses must stay
within 1e-4. The environment of PyTorch is made by benchmarks/environments.py.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import transformers

import tfheads
from benchmarks.peers.shapes import SHAPES
from benchmarks.references import reference
from benchmarks.way_back import Case, Comparison, difference, largest, outputs, through_pytorch
from tests.fixtures import batches

REQUIRED = 1e-4
TITLES = {"gpt2": "GPT-2 124 M", "bert": "BERT-base"}
COMPARED = ("logits", "loss")


def class_of(model_name: str) -> type:
    """The class of tfheads for a name of `SHAPES`."""
    return getattr(tfheads, SHAPES[model_name].model)


def there(model_name: str, tiny: bool) -> dict[str, dict[str, float]]:
    """Output -> mode -> largest absolute difference, of a model that PyTorch saved."""
    with tempfile.TemporaryDirectory() as folder:
        stored = reference(Path(folder), model=model_name, tiny=tiny)
        model = class_of(model_name).from_pretrained(Path(folder) / "checkpoint")
    inputs = {name: tf.constant(stored[name], tf.int32) for name in ("input_ids", "attention_mask", "labels")}

    def forward(given):
        return model(given, training=False)

    modes = {"eager": forward, "graph": tf.function(forward), "XLA": tf.function(forward, jit_compile=True)}
    found = {mode: outputs(function, inputs) for mode, function in modes.items()}
    mask = stored["attention_mask"]
    return {name: {mode: difference(found[mode][name], stored[name], mask) for mode in modes} for name in COMPARED}


def back(tiny: bool) -> dict[str, Comparison]:
    """What PyTorch says of the models that tfheads saved."""

    def cases():
        for model_name in TITLES:
            shape = SHAPES[model_name]
            config = getattr(transformers, shape.config)(**shape.arguments(tiny, 0.0))
            make = {"gpt2": batches.causal_batch, "bert": batches.masked_batch}[model_name]
            model = class_of(model_name).from_config(config, seed=0)
            yield Case(model_name, model, [make(0, 4, 32, config.vocab_size)])

    return through_pytorch(cases())


def main() -> None:
    """Prints two markdown tables; ends with code 1 when something does not fit or a difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    tiny = parser.parse_args().tiny
    titles = {name: f"{title}{', tiny' if tiny else ''}" for name, title in TITLES.items()}
    worst = 0.0
    print("| saved by PyTorch, loaded by tfheads | eager | graph | XLA |\n|---|---|---|---|")
    for model_name, title in titles.items():
        for output, modes in there(model_name, tiny).items():
            worst = largest((worst, *modes.values()))
            print(f"| {title}, {output} | " + " | ".join(f"{value:.1e}" for value in modes.values()) + " |")
    print("\n| saved by tfheads, loaded by PyTorch | keys that do not fit | logits | loss |\n|---|---|---|---|")
    misfits = []
    for model_name, one in back(tiny).items():
        worst, misfits = largest((worst, one.outputs, one.losses)), misfits + one.misfits
        print(f"| {titles[model_name]} | {len(one.misfits)} | {one.outputs:.1e} | {one.losses:.1e} |")
    if misfits or not worst <= REQUIRED:
        sys.exit("; ".join([f"the largest difference is {worst:.1e}, required {REQUIRED}", *misfits]))


if __name__ == "__main__":
    main()

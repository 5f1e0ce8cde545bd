"""Loss curves of 50 training steps, tfheads against PyTorch: same weights, same batches, no dropout.

    python -m benchmarks.training_parity            # GPT-2 small and BERT-base with 4 layers; some minutes
    python -m benchmarks.training_parity --tiny

AdamW with decay on matrices only, linear warm-up and decay, clipping by the global norm (the recipe is in
tests/fixtures/cases). The largest relative difference of a loss must stay within 1e-3. (With Keras' own
AdamW it would not: it adds epsilon elsewhere than PyTorch, which moves the rare tokens of a large vocabulary.)
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from tqdm import tqdm

import tfheads
from benchmarks.references import reference
from tests.fixtures import batches
from tests.fixtures.cases import RECIPE
from tfheads.optimizers import AdamW, create_optimizer

REQUIRED = 1e-3


def optimizer_of(options: argparse.Namespace) -> AdamW:
    """The recipe's AdamW."""
    return create_optimizer(
        options.learning_rate,
        num_train_steps=options.steps,
        warmup_steps=RECIPE["warmup_steps"],
        lr_scheduler_type="linear",
        weight_decay=RECIPE["weight_decay"],
        adam_beta1=RECIPE["beta_1"],
        adam_beta2=RECIPE["beta_2"],
        adam_epsilon=RECIPE["epsilon"],
        max_grad_norm=RECIPE["clip_norm"],
    )


def curves(model_name: str, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The losses `[steps]` of tfheads and of PyTorch."""
    model_class = {"gpt2": tfheads.GPT2LMHeadModel, "bert": tfheads.BertForMaskedLM}[model_name]
    make = {"gpt2": batches.causal_batch, "bert": batches.masked_batch}[model_name]
    shape = {"tiny": options.tiny, "layers": None if options.tiny else options.layers}
    training = {"steps": options.steps, "learning_rate": options.learning_rate}
    with tempfile.TemporaryDirectory() as folder:
        rows = {"batch": options.batch, "length": options.length}
        stored = reference(Path(folder), model=model_name, **shape, **training, **rows)
        model = model_class.from_pretrained(Path(folder) / "checkpoint")
    model.compile(optimizer=optimizer_of(options))
    losses = []
    for step in tqdm(range(options.steps), desc=f"{model_name}: tfheads", leave=False):
        batch = make(step, options.batch, options.length, model.config.vocab_size)
        model.reset_metrics()
        losses.append(float(np.ravel(model.train_on_batch(batch))[0]))
    return np.array(losses), stored["losses"]


def main() -> None:
    """Prints a markdown table; ends with code 1 when a curve leaves PyTorch's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="of the 12 of each model")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    options = parser.parse_args()
    print("| 50 steps | first loss | last loss, PyTorch | last loss, tfheads | largest relative difference |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for model_name, title in (("gpt2", "GPT-2, causal"), ("bert", "BERT, masked")):
        own, other = curves(model_name, options)
        difference = float(np.max(np.abs(own - other) / np.abs(other)))
        worst = float(np.maximum(worst, difference))  # not a number if it is not, which max would pass over
        print(f"| {title} | {other[0]:.4f} | {other[-1]:.4f} | {own[-1]:.4f} | {difference:.1e} |")
    if not worst <= REQUIRED:
        sys.exit(f"the largest relative difference {worst:.1e} is above {REQUIRED}")


if __name__ == "__main__":
    main()

"""Fine-tuning in PyTorch on the batches, from the weights and with the hyperparameters of the recipe, in turns.

Each batch is padded to its longest row, as transformers' collators do.
"""

import os

# Threads that spin while they wait make PyTorch up to a hundred times slower when anything else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.peers.turns import Turns, finish


def batches(path: Path) -> list[dict[str, torch.Tensor]]:
    """The stored batches, without columns of padding alone."""
    found: dict[int, dict] = {}
    with np.load(path) as file:
        for key in file:
            number, name = key.split(":")
            found.setdefault(int(number), {})[name] = file[key]
    result = []
    for number in sorted(found):
        longest = int(found[number]["attention_mask"].sum(1).max())
        cut = {name: value[:, :longest] if value.ndim > 1 else value for name, value in found[number].items()}
        result.append({name: torch.from_numpy(value).long() for name, value in cut.items()})
    return result


def main() -> None:
    """Trains and writes the logits of the evaluation data."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--on-request", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    settings = json.loads((options.folder / "settings.json").read_text())
    transformers.logging.set_verbosity_error()
    torch.manual_seed(settings["seed"])
    model = getattr(transformers, settings["class"]).from_pretrained(options.folder / "initial")
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    training = batches(options.folder / "train.npz")
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, len(training))
    model.train()
    turns, loss_total = Turns(options.steps), 0.0
    for batch in training:
        turns.before_step()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss_total += loss.item()
    turns.end_turn()
    model.eval()
    logits = {}
    with torch.inference_mode():
        for number, batch in enumerate(batches(options.folder / "evaluation.npz")):
            logits[str(number)] = model(**batch).logits.numpy()
    np.savez(options.folder / "logits.npz", **logits)
    finish(train_loss=loss_total / len(training))


if __name__ == "__main__":
    main()

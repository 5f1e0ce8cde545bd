"""PyTorch's side of the comparisons: saves a checkpoint with random weights, its logits, and its loss curve.

    python -m benchmarks.peers.pytorch_reference --model gpt2 --folder FOLDER [--steps 50] [--layers 4] [--tiny]

writes FOLDER/checkpoint (Hugging Face format) and FOLDER/reference.npz with `input_ids`, `attention_mask`, `labels`,
`logits` `[batch, time, vocabulary]`, `loss`, and with --steps also `losses` `[steps]` of training from that checkpoint.
"""

import argparse
import os
from pathlib import Path

# As in pytorch.py: threads that spin while they wait are very slow on a machine that is not idle.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers

from benchmarks.peers import shapes
from tests.fixtures import batches
from tests.fixtures.cases import RECIPE


def build(arguments: argparse.Namespace) -> transformers.PreTrainedModel:
    """The model with PyTorch's own random initial weights, without dropout, attention eager."""
    torch.manual_seed(0)
    if arguments.model == "gpt2":
        config = transformers.GPT2Config(**shapes.SHAPES["gpt2"].arguments(arguments.tiny, 0.0))
        model_class = transformers.GPT2LMHeadModel
    else:
        config = transformers.BertConfig(**shapes.SHAPES["bert"].arguments(arguments.tiny, 0.0))
        model_class = transformers.BertForMaskedLM
    config.num_hidden_layers = arguments.layers or config.num_hidden_layers
    return model_class._from_config(config, attn_implementation="eager")


def tensors(batch: dict) -> dict:
    """A batch of numpy arrays as PyTorch's."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


@torch.inference_mode()
def logits_and_loss(model: transformers.PreTrainedModel, batch: dict) -> dict[str, np.ndarray]:
    """The logits of a batch and its loss."""
    result = model.eval()(**tensors(batch), use_cache=False)
    return {"logits": result.logits.numpy(), "loss": result.loss.numpy()}


def train(model: transformers.PreTrainedModel, arguments: argparse.Namespace, make_batch) -> list[float]:
    """The losses of `steps` updates with the recipe of tests/fixtures/cases, decay on matrices only."""
    model.train()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": RECIPE["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    betas = (RECIPE["beta_1"], RECIPE["beta_2"])
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=betas, eps=RECIPE["epsilon"])
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, RECIPE["warmup_steps"], arguments.steps)
    losses = []
    for step in range(arguments.steps):
        loss = model(**tensors(make_batch(step)), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE["clip_norm"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    """Saves what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("gpt2", "bert"), required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="instead of 12")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--steps", type=int, default=0, help="updates to train for")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = build(arguments)
    model.save_pretrained(arguments.folder / "checkpoint")
    make = batches.causal_batch if arguments.model == "gpt2" else batches.masked_batch

    def make_batch(step: int) -> dict:
        return make(step, arguments.batch, arguments.length, model.config.vocab_size)

    batch = make_batch(0)
    record = {**batch, **logits_and_loss(model, batch)}
    if arguments.steps:
        record["losses"] = np.array(train(model, arguments, make_batch))
    np.savez(arguments.folder / "reference.npz", **record)


if __name__ == "__main__":
    main()

"""PyTorch's transformers, eager or with --compiled through torch.compile."""

import os

# Threads that spin while they wait make PyTorch up to a hundred times slower when anything else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import transformers

from benchmarks.peers import measuring, shapes


def build(arguments) -> transformers.PreTrainedModel:
    """The model with random weights, attention as transformers chooses it (sdpa)."""
    transformers.logging.set_verbosity_error()
    shape = shapes.SHAPES[arguments.model]
    config = getattr(transformers, shape.config)(**shape.arguments(arguments.tiny, arguments.dropout))
    return getattr(transformers, shape.model)(config)


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    torch.manual_seed(0)
    model = build(arguments)
    ids = torch.from_numpy(measuring.token_ids(arguments, model.config.vocab_size)).long()
    mask = torch.ones_like(ids)
    encodes = arguments.model in shapes.ENCODER_DECODERS
    target = {"decoder_input_ids": ids} if encodes else {}
    begins = 1 if encodes else arguments.length  # the start token, or the prompt
    uncached = {} if arguments.model in shapes.ENCODERS else {"use_cache": False}
    called = torch.compile(model) if arguments.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)

    def train_step() -> float:
        loss = called(input_ids=ids, attention_mask=mask, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    @torch.inference_mode()
    def forward() -> float:
        return called(input_ids=ids, attention_mask=mask, **target, **uncached).logits[0, -1].sum().item()

    @torch.inference_mode()
    def generate() -> float:
        lengths = {"max_new_tokens": arguments.new_tokens, "do_sample": False, "pad_token_id": 0}
        made = model.generate(ids, attention_mask=mask, **lengths).shape[1] - begins
        if made != arguments.new_tokens:
            raise AssertionError(f"{arguments.new_tokens} tokens were wanted and {made} made")
        return float(made)

    model.train(arguments.task == "train_step")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"train_step": train_step, "forward": forward, "generate": generate}[arguments.task], parameters


if __name__ == "__main__":
    measuring.run(prepare)

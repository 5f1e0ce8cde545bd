"""The same checkpoints in PyTorch's transformers: the rust tokenizer and the model, called directly."""

import os

# Threads that spin while they wait make PyTorch up to a hundred times slower when anything else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path

import torch
import transformers

from benchmarks.peers import measuring, served_texts


def load(arguments):
    """Tokenizer, model and requests."""
    transformers.logging.set_verbosity_error()
    classify = arguments.task == "classify_texts"
    folder = Path(arguments.folder, "classifier" if classify else "generator", "checkpoint")
    kind = transformers.AutoModelForSequenceClassification if classify else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder).eval()
    return transformers.AutoTokenizer.from_pretrained(folder), model, served_texts.requests(arguments)


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    tokenizer, model, requests = load(arguments)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    @torch.inference_mode()
    def classify() -> float:
        total = 0.0
        for texts in requests:
            encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            total += model(**encoded).logits.softmax(-1).max(-1).values.sum().item()
        return total

    @torch.inference_mode()
    def generate() -> float:
        total = 0
        for texts in requests:
            encoded = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
            options = {"max_new_tokens": arguments.new_tokens, "do_sample": False, "pad_token_id": 0}
            made = model.generate(**encoded, **options)[:, encoded["input_ids"].shape[1] :]
            total += sum(len(text.encode()) for text in tokenizer.batch_decode(made))
        return float(total)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"classify_texts": classify, "continue_texts": generate}[arguments.task], parameters


if __name__ == "__main__":
    measuring.run(prepare)

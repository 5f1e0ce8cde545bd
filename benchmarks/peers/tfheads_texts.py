"""The same generator in tfheads: the rust tokenizer and `model.generate`, compiled by XLA."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import numpy as np

import tfheads
from benchmarks.peers import measuring, served_texts
from tfheads.checkpoints.tokenizers import load_tokenizer


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    folder = Path(arguments.folder, "generator", "checkpoint")
    model, tokenizer = tfheads.AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    requests = served_texts.requests(arguments)

    def generate() -> float:
        total = 0
        for texts in requests:
            encoded = tokenizer(texts, padding=True, padding_side="left", return_tensors="np")
            options = {"max_new_tokens": arguments.new_tokens, "do_sample": False, "pad_token_id": 0}
            made = np.asarray(model.generate(encoded, **options))[:, encoded["input_ids"].shape[1] :]
            total += sum(len(text.encode()) for text in tokenizer.batch_decode(made))
        return float(total)

    return generate, model.count_params()


if __name__ == "__main__":
    measuring.run(prepare)

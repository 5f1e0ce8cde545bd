"""The same classifier in the pipeline of PyTorch's transformers."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see benchmarks/peers/pytorch_texts.py

import transformers

from benchmarks.peers import measuring, pytorch_texts


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    tokenizer, model, requests = pytorch_texts.load(arguments)
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, batch_size=arguments.batch)

    def classify() -> float:
        return sum(answer["score"] for texts in requests for answer in pipe(texts, truncation=True))

    return classify, sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    measuring.run(prepare)

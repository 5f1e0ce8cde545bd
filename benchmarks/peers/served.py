"""A SavedModel as a client without tfheads calls it."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401 - the tokenizers' operations

from benchmarks.peers import measuring, served_texts


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    folder = Path(arguments.folder, "classifier" if arguments.task == "classify_texts" else "generator", "served")
    answer = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    requests = served_texts.requests(arguments)

    def classify() -> float:
        return sum(float(answer(text=tf.constant(texts))["score"].numpy().sum()) for texts in requests)

    def generate() -> float:
        return float(
            sum(len(text) for texts in requests for text in answer(text=tf.constant(texts))["new_text"].numpy())
        )

    parameters = json.loads((folder / "manifest.json").read_text())["model"]["parameters"]
    return {"classify_texts": classify, "continue_texts": generate}[arguments.task], parameters


if __name__ == "__main__":
    measuring.run(prepare)

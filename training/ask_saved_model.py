"""Asks an exported model in a process that knows only TensorFlow: python training/ask_saved_model.py DIRECTORY TEXT.

DIRECTORY is one version, such as quickstart_output/serving/gpt2/1. Prints the answer as JSON. This is all that a client
of a SavedModel needs; tensorflow_text is imported for the tokenizer's operations in the graph.
"""

import json
import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401


def plain(value):
    """Tensors' values for JSON: bytes become text."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def main() -> None:
    directory, text = sys.argv[1:]
    answer = tf.saved_model.load(directory).signatures["serving_default"](text=tf.constant([text]))
    if any(name in sys.modules for name in ("tfheads", "transformers", "keras_nlp")):
        sys.exit("the SavedModel needed more than TensorFlow")
    print(json.dumps({name: plain(value.numpy().tolist()) for name, value in answer.items()}, ensure_ascii=False))


if __name__ == "__main__":
    main()

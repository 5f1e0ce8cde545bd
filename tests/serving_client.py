"""A client of a SavedModel that knows nothing of tfheads: calls signatures, prints the answers as JSON.

    python serving_client.py CALLS.json

CALLS.json is a list of [directory, signature, {input: [dtype, value]}]. Bytes that JSON cannot hold travel as Latin-1.
"""

import json
import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401 - registers its operations


def plain(value):
    """The answer as JSON data."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode("latin-1") if isinstance(value, bytes) else value


def encoded(value):
    """Strings of the calls as bytes."""
    return [encoded(item) for item in value] if isinstance(value, list) else value.encode("latin-1")


def main(calls: str) -> None:
    """Calls the signatures in turn; an error is an answer too."""
    loaded, answers = {}, []
    for directory, name, inputs in json.load(open(calls, encoding="utf-8")):  # noqa: SIM115
        given = {}
        if directory not in loaded:
            loaded[directory] = tf.saved_model.load(directory)
        for key, (dtype, value) in inputs.items():
            value = encoded(value) if dtype == "string" else value
            given[key] = tf.constant(value, dtype, shape=[0] if value == [] else None)
        try:
            answer = loaded[directory].signatures[name](**given)
            answers.append({key: plain(tensor.numpy().tolist()) for key, tensor in answer.items()})
        except (tf.errors.OpError, TypeError, ValueError) as error:
            answers.append(str(error))
    forbidden = [module for module in ("tfheads", "transformers", "tokenizers") if module in sys.modules]
    print(json.dumps({"answers": answers, "forbidden": forbidden}))


if __name__ == "__main__":
    main(*sys.argv[1:])

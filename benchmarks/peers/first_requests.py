"""How long the first requests to a freshly loaded SavedModel take; prints one JSON line.

python -m benchmarks.peers.first_requests VERSION_DIRECTORY [--warm-up]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import time
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401 - the tokenizers' operations
from tensorflow_serving.apis import prediction_log_pb2


def warm_up(directory: Path, signatures) -> None:
    """What TensorFlow Serving does when it has loaded a version."""
    path = str(directory / "assets.extra/tf_serving_warmup_requests")
    for record in tf.data.TFRecordDataset(path):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        signatures[request.model_spec.signature_name](**inputs)


def main() -> None:
    """Loads, perhaps warms up, asks twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--warm-up", action="store_true")
    arguments = parser.parse_args()
    loaded = tf.saved_model.load(str(arguments.directory))  # its variables live as long as it does
    seconds, start = {}, time.perf_counter()
    if arguments.warm_up:
        warm_up(arguments.directory, loaded.signatures)
        seconds["warm-up"] = time.perf_counter() - start
    for name in ("first", "second"):
        start = time.perf_counter()
        loaded.signatures["serving_default"](text=tf.constant(["A request as a client sends it."]))
        seconds[name] = time.perf_counter() - start
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

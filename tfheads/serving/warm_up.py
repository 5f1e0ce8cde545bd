"""Requests that TensorFlow Serving makes itself when it loads a version, so that no client waits for the first."""

from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
MOST_REQUESTS = 1000  # a server refuses a version that has more


def write_warm_up(version: Path, name: str, requests: Iterable[tuple[str, dict]]) -> int:
    """Writes the requests into a version directory.

    A server does not load a version of which one of these requests fails, so each must have been tried.

    Args:
        version: the version directory.
        name: what the server calls the model.
        requests: the name of a signature and its inputs, in the order in which they shall be made.

    Returns:
        How many there are.

    Raises:
        ValueError: there are more than a server accepts.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    requests = list(requests)
    if len(requests) > MOST_REQUESTS:
        raise ValueError(f"example_inputs must give at most {MOST_REQUESTS} requests, got {len(requests)}")
    path = version / WARM_UP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            file.write(log.SerializeToString())
    return len(requests)

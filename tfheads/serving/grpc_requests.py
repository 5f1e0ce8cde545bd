"""Sends the requests of this directory to a server over gRPC: python grpc_requests.py [HOST:PORT].

Needs the packages tensorflow and tensorflow-serving-api. Prints the answers as JSON, a line for each signature.
"""

import json
import sys
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

HERE = Path(__file__).parent
MANIFEST = json.loads((HERE.parent / "manifest.json").read_text(encoding="utf-8"))


def request_to(signature: str) -> predict_pb2.PredictRequest:
    """The request to a signature, its inputs in the dtypes that it wants."""
    inputs = json.loads((HERE / f"{signature}.json").read_text(encoding="utf-8"))["inputs"]
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = MANIFEST["name"], signature
    for name, wanted in MANIFEST["signatures"][signature]["inputs"].items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(inputs[name], wanted["dtype"]))
    return request


def plain(value):
    """Tensors' values for JSON: bytes become text."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def main(address: str = "localhost:8500") -> None:
    """Sends the requests one after another."""
    with grpc.insecure_channel(address) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for signature in MANIFEST["signatures"]:
            outputs = service.Predict(request_to(signature), timeout=60.0).outputs
            answer = {name: plain(tf.make_ndarray(value).tolist()) for name, value in sorted(outputs.items())}
            print(json.dumps({"signature_name": signature, "outputs": answer}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])

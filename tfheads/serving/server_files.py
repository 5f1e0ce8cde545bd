"""The files beside the versions with which a server is run: its configuration, a container's, a cluster's."""

import importlib.metadata
import re
from pathlib import Path

import yaml

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
GRPC_PORT, REST_PORT = 8500, 8501
MANIFEST, BATCHING = "manifest.json", "batching.config"
KUBERNETES_NAME_LENGTH = 63


def model_name(directory: Path) -> str:
    """What the server calls the model: the directory's name, with "-" for what is not simple in an address."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(directory).resolve().name).strip("-") or "model"


def can_batch(manifest: dict) -> bool:
    """Whether the server may join requests: it then joins those of every signature, along the first axis of each input.

    A signature whose inputs have no such axis, or a `serving_default` whose rows have lengths that differ, would fail.
    """
    signatures = manifest["signatures"]
    inputs = [value["shape"] for signature in signatures.values() for value in signature["inputs"].values()]
    rows = [value["shape"] for value in signatures["serving_default"]["inputs"].values()]
    return all(shape and shape[0] == -1 for shape in inputs) and all(len(shape) == 1 for shape in rows)


def server_files(name: str, manifest: dict) -> dict[str, str]:
    """The contents of the files by their names."""
    files = {
        "models.config": models_config(name),
        "docker-compose.yaml": compose(name, manifest),
        "kubernetes.yaml": kubernetes(name, manifest),
    }
    return {**files, BATCHING: batching_config()} if can_batch(manifest) else files


def image() -> str:
    """The container of the server that belongs to the installed version of its messages."""
    return f"tensorflow/serving:{importlib.metadata.version('tensorflow-serving-api')}"


def base_path(name: str) -> str:
    """Where the model's directory is inside a container."""
    return f"/models/{name}"


def batching_flags(path: str) -> list[str]:
    """What makes a server join requests, with the file in the directory `path`."""
    return ["--enable_batching=true", f"--batching_parameters_file={path}/{BATCHING}"]


def models_config(name: str) -> str:
    """`--model_config_file` of a server, to which other models can be added."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path(name), model_platform="tensorflow")
    return "# tensorflow_model_server --model_config_file; base_path is that of a container.\n" + (
        text_format.MessageToString(config)
    )


def batching_config() -> str:
    """`--batching_parameters_file`: requests that arrive together become one batch of an allowed size.

    Inputs are not padded by the server, which would repeat token ids.
    """
    numbers = {"max_batch_size": BATCH_SIZES[-1], "batch_timeout_micros": 1000, "max_enqueued_batches": 100}
    lines = [f"{key} {{ value: {value} }}" for key, value in numbers.items()]
    lines += [f"allowed_batch_sizes: {size}" for size in BATCH_SIZES]
    return "\n".join([*lines, "pad_variable_length_inputs: false", ""])


def compose(name: str, manifest: dict) -> str:
    """A file for `docker compose up` in the model's directory."""
    service = {
        "image": image(),
        "environment": {"MODEL_NAME": name},
        "command": _arguments(name, manifest),
        "ports": [f"{GRPC_PORT}:{GRPC_PORT}", f"{REST_PORT}:{REST_PORT}"],
        "volumes": [{"type": "bind", "source": ".", "target": base_path(name), "read_only": True}],
        "restart": "unless-stopped",
    }
    return "# docker compose up\n" + _yaml({"services": {_label(name): service}})


def kubernetes(name: str, manifest: dict) -> str:
    """A Deployment and a Service; the model's directory is what is in the PersistentVolumeClaim of its name."""
    label = _label(name)
    labels = {"app": label}
    ready = {"httpGet": {"path": f"/v1/models/{name}", "port": "rest"}, "periodSeconds": 5}
    memory = 1 + round(2 * sum(manifest["bytes"].values()) / 2**30)
    container = {
        "name": "tensorflow-serving",
        "image": image(),
        "args": _arguments(name, manifest),
        "env": [{"name": "MODEL_NAME", "value": name}],
        "ports": [{"name": "grpc", "containerPort": GRPC_PORT}, {"name": "rest", "containerPort": REST_PORT}],
        "startupProbe": {**ready, "failureThreshold": 120},
        "readinessProbe": ready,
        "resources": {"requests": {"memory": f"{memory}Gi"}},
        "volumeMounts": [{"name": "model", "mountPath": base_path(name), "readOnly": True}],
    }
    volume = {"name": "model", "persistentVolumeClaim": {"claimName": label, "readOnly": True}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": label, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": [volume]}},
        },
    }
    ports = [{"name": "grpc", "port": GRPC_PORT}, {"name": "rest", "port": REST_PORT}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": label, "labels": labels},
        "spec": {"selector": labels, "ports": [{**port, "targetPort": port["name"]} for port in ports]},
    }
    note = f"# kubectl apply -f; a PersistentVolumeClaim {label} holds this directory.\n"
    return note + _yaml(deployment, service)


def _arguments(name: str, manifest: dict) -> list[str]:
    """What the container's program gets beside the name and the ports, which it knows."""
    return batching_flags(base_path(name)) if can_batch(manifest) else []


def _label(name: str) -> str:
    """The name as clusters and compose want it: lower case, digits and "-", a letter first."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (label if label[:1].isalpha() else f"model-{label}")[:KUBERNETES_NAME_LENGTH].strip("-")


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: not every reader of manifests knows references."""

    def ignore_aliases(self, data) -> bool:
        return True


def _yaml(*documents: dict) -> str:
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False)

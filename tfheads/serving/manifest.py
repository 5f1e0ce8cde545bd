"""What a version holds and needs, for those who run the server."""

import datetime
import os
from pathlib import Path

import tensorflow as tf
import transformers
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tfheads.models import TaskModel


def manifest(version: Path, model: TaskModel, tokenizer: transformers.PreTrainedTokenizerBase | None) -> dict:
    """The manifest of a version directory that is complete.

    Args:
        version: the directory with `saved_model.pb`.
        model: what was exported.
        tokenizer: what is in the graph, None for nothing; its ids have been compared.

    Returns:
        JSON data: versions of the software, model, tokenizer, signatures, operations, and sizes in bytes.
    """
    import tfheads

    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]
    operations = operations_of(graph)
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tfheads": tfheads.__version__,
        "tensorflow": graph.meta_info_def.tensorflow_version,
        "model": {
            "class": type(model).__name__,
            "config": type(model.config).__name__,
            "checkpoint": _name(model.config.name_or_path),
            "dtype": model.dtype_policy.name,
            "parameters": model.count_params(),
        },
        "tokenizer": tokenizer and _tokenizer(tokenizer),
        "signatures": {name: _signature(value) for name, value in served_signatures(graph).items()},
        "operations": operations,
        "custom_operations": {"tensorflow_text": [name for name in operations if not hasattr(tf.raw_ops, name)]},
        "bytes": {
            path.relative_to(version).as_posix(): path.stat().st_size
            for path in sorted(version.rglob("*"))
            if path.is_file()
        },
    }


def operations_of(graph: meta_graph_pb2.MetaGraphDef) -> list[str]:
    """The names of all operations in a graph and its functions."""
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    return sorted({node.op for node in nodes} - {function.signature.name for function in functions})


def served_signatures(graph: meta_graph_pb2.MetaGraphDef) -> dict:
    """The signatures that clients can call, by name."""
    return {name: value for name, value in sorted(graph.signature_def.items()) if not name.startswith("__")}


def _signature(signature) -> dict:
    def described(tensors) -> dict:
        return {
            name: {
                "dtype": tf.dtypes.as_dtype(tensor.dtype).name,
                "shape": None if tensor.tensor_shape.unknown_rank else [dim.size for dim in tensor.tensor_shape.dim],
            }
            for name, tensor in sorted(tensors.items())
        }

    return {"inputs": described(signature.inputs), "outputs": described(signature.outputs)}


def _tokenizer(tokenizer) -> dict:
    check = "ids, and texts of ids, equal those of the tokenizer on the probe texts of tfheads.preprocessing"
    return {"class": type(tokenizer).__name__, "checkpoint": _name(tokenizer.name_or_path), "check": check}


def _name(checkpoint: str) -> str | None:
    """The id of a repository, or the name of a directory without what it is in; None for neither."""
    if not checkpoint:
        return None
    return os.path.basename(os.path.normpath(checkpoint)) if os.path.isdir(checkpoint) else checkpoint

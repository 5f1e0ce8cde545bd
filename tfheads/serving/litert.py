"""Models as LiteRT files: token ids in, what the model gives out, made of LiteRT's own operations alone."""

import os
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.serving.token_level import Bundle

LARGEST = 2**31  # bytes of a file, whose places are counted in 32 bits
TOLERANCE = 1e-4
OTHER_OPERATIONS = re.compile(r"(?:TF Select|Custom) ops: (.*)")


def export(model: TaskModel, path: str | os.PathLike, overwrite: bool) -> str:
    """Writes the file; see `Served.export_litert`."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"path must be that of a file, {path} is a directory")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: give another path, or overwrite=True")
    size = sum(4 * int(np.prod(variable.shape)) for variable in model.weights)
    if size >= LARGEST:
        raise ValueError(f"model must have less than 2 GB of weights for a LiteRT file, it has {size / 1e9:.1f} GB")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tfheads-litert-", dir=path.parent) as staging:
        content = converted(model, staging)
        check(model, content)
        written = Path(staging, "model.tflite")
        written.write_bytes(content)
        written.replace(path)
    return str(path)


def converted(model: TaskModel, staging: str) -> bytes:
    """The model as a LiteRT file.

    Args:
        model: a task model.
        staging: a directory for what is written meanwhile.

    Raises:
        ValueError: it needs operations that LiteRT does not have itself.
    """

    def outputs(**inputs):
        output, _ = model.forward(model.completed(inputs, {}), training=False)
        names = [name for name in output if not name.endswith("hidden_states")]
        return {name: tf.cast(output[name], "float32") for name in names}

    specs = {name: tf.TensorSpec([None] * axes, "int32", name) for name, axes in model.token_level_inputs.items()}
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.weights]
    signature = tf.function(outputs, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(module, staging, signatures={"serving_default": signature})
    converter = tf.lite.TFLiteConverter.from_saved_model(staging)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except Exception as error:  # of a class that TensorFlow does not make public
        lacking = sorted(set(OTHER_OPERATIONS.findall(str(error))))
        if not lacking:
            raise
        name = type(model).__name__
        raise ValueError(f"{name} cannot be a LiteRT file, which has no operation {', '.join(lacking)}") from error


def check(model: TaskModel, content: bytes) -> None:
    """Compares what a LiteRT file gives for some token ids with what the model gives.

    Raises:
        ValueError: they differ.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter is going to have a package of its own
        runner = tf.lite.Interpreter(model_content=content).get_signature_runner()
    inputs = Bundle(model).token_level_example()
    expected, found = model(inputs), runner(**inputs)
    for name, value in found.items():
        difference = float(np.max(np.abs(value - tf.cast(expected[name], "float32").numpy()), initial=0.0))
        if not difference <= TOLERANCE:
            raise ValueError(f"{type(model).__name__} gives other {name} as a LiteRT file, by up to {difference:.2g}")

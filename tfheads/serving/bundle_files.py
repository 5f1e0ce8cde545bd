"""What is written with a SavedModel: warm-up requests within it; manifest, configurations and requests beside it."""

import json
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import transformers

from tfheads.checkpoints.atomic import replaced_directory
from tfheads.serving.manifest import manifest
from tfheads.serving.request_examples import request_files
from tfheads.serving.server_files import BATCHING, MANIFEST, model_name, server_files
from tfheads.serving.token_level import Bundle
from tfheads.serving.warm_up import write_warm_up

COMPILED = "_xla"  # signatures that servers without XLA cannot run, though they can load and run all others


def write_version(
    path: Path,
    directory: Path,
    bundle: Bundle,
    tokenizer: transformers.PreTrainedTokenizerBase | None,
) -> dict[str, str]:
    """Writes a version: the SavedModel, and requests that warm a server up.

    Each of the bundle's examples is answered here first, for a server does not load a version of which one fails.

    Args:
        path: an empty directory, which becomes the version.
        directory: the model's directory.
        bundle: what is saved.
        tokenizer: what is in the bundle's graph, None for nothing.

    Returns:
        The contents of the files beside the versions, by name.
    """
    name, signatures, examples = model_name(directory), bundle.signatures(), bundle.example_inputs()
    tf.saved_model.save(bundle, str(path), signatures=signatures)
    shown = {}
    for signature, requests in examples.items():
        answers = [_answer(signatures[signature], inputs) for inputs in requests]
        shown[signature] = requests[0], answers[0]
    requests = [
        (signature, inputs)
        for signature, several in examples.items()
        for inputs in several
        if not signature.endswith(COMPILED)
    ]
    count = write_warm_up(path, name, requests)
    contents = {"name": name, **manifest(path, bundle.model, tokenizer), "warm_up_requests": count}
    files = {MANIFEST: json.dumps(contents, ensure_ascii=False, indent=1) + "\n", **server_files(name, contents)}
    return {**files, **request_files(name, shown)}


def write_beside(directory: Path, files: dict[str, str]) -> None:
    """Writes the files into the model's directory, all of them or none."""
    with replaced_directory(directory, entry=MANIFEST, stale=[BATCHING]) as staging:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")


def _answer(signature: Callable, inputs: dict) -> dict:
    answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}

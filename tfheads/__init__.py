"""Keras 3 language models with Hugging Face checkpoints, distributed training and TF Serving exports."""

import importlib
import os

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers would report that PyTorch is missing

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(f"tfheads needs Keras' tensorflow backend, got {keras.backend.backend()!r}: set KERAS_BACKEND")

from tfheads import families, registry  # noqa: F401

__version__ = "0.1.0"

# Public names that are not classes of the registry, and the modules that have them; imported when first asked for.
LAZY = {
    "pipeline": "tfheads.pipelines",
}


def __getattr__(name: str):
    if name in LAZY:
        return getattr(importlib.import_module(LAZY[name]), name)
    found = registry.find(name)
    if found is None:
        raise AttributeError(f"tfheads has no {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY, *registry.CLASSES})

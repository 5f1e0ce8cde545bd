"""Keras 3 language models with Hugging Face checkpoints, distributed training and TF Serving exports."""

import os

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers would report that PyTorch is missing

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(f"tfheads needs Keras' tensorflow backend, got {keras.backend.backend()!r}: set KERAS_BACKEND")

from tfheads import families, registry  # noqa: F401

__version__ = "0.1.0"


def __getattr__(name: str):
    found = registry.find(name)
    if found is None:
        raise AttributeError(f"tfheads has no {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *registry.CLASSES})

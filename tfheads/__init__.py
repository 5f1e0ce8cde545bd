"""Keras 3 language models with Hugging Face checkpoints, distributed training and TF Serving exports."""

import difflib
import importlib
import os

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers would report that PyTorch is missing

_backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _backend == "tensorflow":  # Keras' import fails when a backend is not installed
    import keras

    _backend = keras.backend.backend()
if _backend != "tensorflow":
    raise ImportError(f"tfheads needs Keras' tensorflow backend, got {_backend!r}: set KERAS_BACKEND=tensorflow")

from tfheads.deferred_torch import torch_deferred  # noqa: E402

with torch_deferred():
    from tfheads import families, registry  # noqa: F401

__version__ = "0.1.0"

# Public names that are not classes of the registry, and the modules that have them; imported when first asked for.
LAZY = {
    "create_optimizer": "tfheads.optimizers:create_optimizer_and_schedule",  # as in old scripts for transformers
    "AdamW": "tfheads.optimizers",
    "EvaluationCallback": "tfheads.callbacks",
    "KerasMetricCallback": "tfheads.callbacks",
    "PushToHubCallback": "tfheads.callbacks",
    "TensorBoardCallback": "tfheads.callbacks",
    "TrainingState": "tfheads.callbacks",
    "WandbCallback": "tfheads.callbacks",
    "fit_resumable": "tfheads.callbacks",
    "pipeline": "tfheads.pipelines",
}

MODULES = ("distribute", "legacy")


def __getattr__(name: str):
    if name in MODULES:
        return importlib.import_module(f"tfheads.{name}")
    if name in LAZY:
        module, _, attribute = LAZY[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)
    found = registry.find(name)
    if found is None:
        near = difflib.get_close_matches(name, __dir__(), n=1, cutoff=0.7)
        raise AttributeError(f"tfheads has no {name!r}" + (f", did you mean {near[0]!r}" if near else ""))
    return found


def __dir__() -> list[str]:
    return sorted({"__version__", *MODULES, *LAZY, *registry.CLASSES})

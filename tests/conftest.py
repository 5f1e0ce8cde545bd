"""What the tests run with, their order, and fixtures of several files."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

gc.disable()  # until everything is imported
XLA = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes --xla_cpu_parallel_codegen_split_count=1"
XLA += " --xla_cpu_use_fusion_emitters=false"
"""XLA's own work is all there, LLVM's is quick: what it compiles runs once or twice. `make test-slow` does without."""
QUICK = os.environ.get("XLA_FLAGS", XLA) == XLA
os.environ.setdefault("XLA_FLAGS", XLA)
STARTUP = str(Path(__file__).parent / "startup")
os.environ["PYTHONPATH"] = os.pathsep.join([STARTUP, *filter(None, [os.environ.get("PYTHONPATH")])])
sys.path.insert(0, STARTUP)

import sitecustomize  # noqa: E402, F401 - what processes of the tests start with, in this one too
import wandb  # noqa: E402 - after the above

LONGEST = [
    *("distribution", "families", "recipes", "heads", "serving", "checkpoints", "generation_parity", "training"),
    *("documentation", "data_pipeline", "pipelines_text_to_text", "generation", "adapters", "push_to_hub_callback"),
]
"""Files that take half a minute or more: they come first, so that two processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def pytest_sessionstart(session: pytest.Session) -> None:
    only_distributes = session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput")
    if QUICK and not only_distributes:
        leave_out_tuning()
        leave_out_names_for_debugging()


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector of garbage need not look through it a thousand times."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


def leave_out_tuning() -> None:
    """Graphs and datasets run as they are made.

    Grappler takes longer than it saves here. The thread that tunes a dataset may miss that it is to end (TensorFlow
    wakes it just before it sets the flag) and sleeps on, for as long as the dataset has lived, while the test waits.
    """
    import tensorflow as tf  # not where tests are only distributed
    from tensorflow.python.data.ops.multi_device_iterator_ops import OwnedMultiDeviceIterator

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    options = tf.data.Options()
    options.autotune.enabled = False
    iterate, start = tf.data.Dataset.__iter__, OwnedMultiDeviceIterator.__init__

    def start_untuned(iterator, dataset=None, *arguments, **named):
        start(iterator, None if dataset is None else dataset.with_options(options), *arguments, **named)

    tf.data.Dataset.__iter__ = lambda dataset: iterate(dataset.with_options(options))
    OwnedMultiDeviceIterator.__init__ = start_untuned


def leave_out_names_for_debugging() -> None:
    """Variables come about in half the time: TensorFlow looks for a kernel anew wherever a name for messages is new."""
    from tensorflow.python.ops import gen_resource_variable_ops

    make = gen_resource_variable_ops.var_handle_op
    gen_resource_variable_ops.var_handle_op = lambda **options: make(**{**options, "debug_name": ""})


@pytest.fixture
def offline_tracking(tmp_path, monkeypatch) -> Iterator[Path]:
    """A directory in whose `wandb` runs are written; W&B reads the environment once, until it is torn down."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield tmp_path
    wandb.teardown()

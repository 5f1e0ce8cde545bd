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

LONGEST = ["families", "distribution", "documentation", "restarts", "heads", "recipes", "serving", "generation_parity"]
LONGEST += ["generation", "training", "adapters", "pipelines_text_to_text", "recipes_translation", "checkpoints"]
"""Files that take half a minute or more: they come first, so that two processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector of garbage need not look through it a thousand times.

    And graphs run as they are traced: Grappler, which rewrites them to run faster, takes longer than it saves here.
    """
    if QUICK and "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.fixture
def offline_tracking(tmp_path, monkeypatch) -> Iterator[Path]:
    """A directory in whose `wandb` runs are written; W&B reads the environment once, until it is torn down."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield tmp_path
    wandb.teardown()

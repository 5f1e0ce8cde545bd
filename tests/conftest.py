"""What the tests run with, their order, and fixtures of several files."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick_tensorflow import choose_flags, leave_out_optimisation

gc.disable()  # until everything is imported
choose_flags()
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
    if not only_distributes:
        leave_out_optimisation()


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector of garbage need not look through it a thousand times."""
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

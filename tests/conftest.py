"""The order of the tests, and fixtures of several files."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

LONGEST = ["documentation", "distribution", "heads", "generation_parity", "restarts", "recipes", "recipes_translation"]
LONGEST += ["precision", "pipelines_text_to_text", "serving_writing", "serving", "serving_classes"]
"""Files that take a minute or more: they come first, so that two processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector of garbage need not look through it a thousand times."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture
def offline_tracking(tmp_path, monkeypatch) -> Iterator[Path]:
    """A directory in whose `wandb` runs are written; W&B reads the environment once, until it is torn down."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield tmp_path
    wandb.teardown()

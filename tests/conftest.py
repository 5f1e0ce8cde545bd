"""Fixtures of several test files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb


@pytest.fixture
def offline_tracking(tmp_path, monkeypatch) -> Iterator[Path]:
    """A directory in whose `wandb` runs are written; W&B reads the environment once, until it is torn down."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield tmp_path
    wandb.teardown()

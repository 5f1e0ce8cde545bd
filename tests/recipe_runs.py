"""What the tests of recipes that write text share."""

import json
from pathlib import Path

WRITING_RUN = {
    "model_name_or_path": "none",
    "dataset_name": "none",
    "source_prefix": "none",
    "max_source_length": 32,
    "max_target_length": 24,
    "learning_rate": 1e-2,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": "false",
    "metric_for_best_model": "none",
    "report_to": "none",
    "bf16": "false",
    "jit_compile": "false",
}
"""Flags of a short run from scratch: nothing saved, evaluated or tracked unless a test says so."""


def write_lines(path: Path, rows: list[dict]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

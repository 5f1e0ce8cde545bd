"""`make quickstart` itself, at its real size."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_quickstart_trains_generates_and_serves():
    started = time.monotonic()
    command = [sys.executable, "training/quickstart.py"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - started < 360
    log = (ROOT / "quickstart_output" / "gpt2" / "log_history.jsonl").read_text().splitlines()
    perplexities = [entry["perplexity"] for entry in map(json.loads, log) if "perplexity" in entry]
    assert perplexities[0] > 10 * perplexities[-1]
    assert (ROOT / "quickstart_output" / "loss_curves.png").stat().st_size > 10_000
    for name in ("gpt2", "bert"):
        assert f"quickstart_output/serving/{name}/1 answers" in ended.stdout
        assert (ROOT / "quickstart_output" / name / "model.safetensors").is_file()

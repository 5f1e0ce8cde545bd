"""The arithmetic and the protocol of the benchmarks; the measurements themselves are commands, not tests."""

import contextlib
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import transformers

from benchmarks import environments, speed, way_back, writing
from benchmarks.peers import measuring, shapes
from tfheads.metrics.bleu import bleu_measures
from tfheads.metrics.rouge import rouge_measures
from tfheads.recipes.command_line import parse


def peer(arguments):
    """A peer that does nothing, quickly."""
    return lambda: 1.0, 10


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_peer_prints_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peer", "--task", "forward", "--repeats", "3"])
    measuring.run(peer)
    (summary,) = lines(capsys)
    assert summary["parameters"] == 10
    assert 0 <= summary["min_seconds"] <= summary["median_seconds"]
    assert summary["first_result_seconds"] >= 0 and summary["peak_memory_gigabytes"] > 0


def test_a_peer_answers_each_request(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peer", "--on-request"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
    measuring.run(peer)
    ready, first, second, summary = lines(capsys)
    assert ready == {"ready": True}
    assert summary["min_seconds"] == min(first["seconds"], second["seconds"])


def test_a_result_that_is_not_finite_stops_the_measurement(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peer"])
    with pytest.raises(ArithmeticError, match="nan"):
        measuring.run(lambda arguments: (lambda: float("nan"), 10))


def test_all_peers_get_the_same_tokens():
    arguments = measuring.parser().parse_args(["--batch", "2", "--length", "7"])
    ids = measuring.token_ids(arguments, 503)
    assert ids.shape == (2, 7) and ids.min() >= 5 and ids.max() < 503
    assert (ids == measuring.token_ids(arguments, 503)).all()


def test_tiny_shapes_have_the_names_of_the_real_ones():
    for name, shape in shapes.SHAPES.items():
        tiny, real = shape.arguments(True, 0.1), shape.arguments(False, 0.1)
        assert tiny.keys() == real.keys(), name
        known = {*getattr(transformers, shape.config)().to_dict(), "decoder_start_token_id"}
        assert tiny.keys() <= known, name


def worker(name: str, seconds: list[float]) -> speed.Worker:
    summary = {"parameters": 100_000_000, "first_result_seconds": 5.0, "peak_memory_gigabytes": 2.0}
    return speed.Worker(name, process=None, log=Path(), seconds=seconds, summary=summary)


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds():
    assert speed.median_ratio([1.0, 2.0, 9.0], [2.0, 4.0, 9.0]) == 0.5
    workers = {"tfheads": worker("tfheads", [1.0, 2.0, 9.0]), "KerasHub": worker("KerasHub", [2.0, 4.0, 9.0])}
    rows = speed.table(speed.TASKS["train_step"], workers, {"XLA GFLOP/s": 100.0, "sum GB/s": 20.0}).splitlines()
    assert rows[2].startswith("| tfheads | 2 | 1 | 1.00 | 5.0 | 2.0 |")
    assert rows[3].startswith("| KerasHub | 4 | 2 | 0.50 |")


def test_limits():
    reached = {"TensorFlow GFLOP/s": 50.0, "XLA GFLOP/s": 100.0, "sum GB/s": 20.0, "XLA vector x matrix GB/s": 10.0}
    parameters = 100_000_000
    assert speed.limit_seconds(speed.TASKS["train_step"], parameters, reached) == pytest.approx(6 * 512 / 1000)
    assert speed.limit_seconds(speed.TASKS["forward"], parameters, reached) == pytest.approx(2 * 512 / 1000)
    assert speed.limit_seconds(speed.TASKS["generate_1"], parameters, reached) == pytest.approx(64 * 0.4 / 20)


def test_a_peer_that_ends_is_named(tmp_path):
    log = tmp_path / "peer.log"
    log.write_text("Traceback\nValueError: no model\n")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE, text=True)
    with pytest.raises(RuntimeError, match="Example ended with code 3: ValueError: no model"):
        speed.Worker("Example", process, log).read("ready")


def test_a_folder_without_the_environment_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="torch/bin/python"):
        environments.interpreter("torch")
    assert environments.interpreter("project") == Path(sys.executable)


def test_written_texts_are_read_and_measured_again(tmp_path):
    """Of two files of lines and of one of JSON lines; the flags are the recipes', the measures Hugging Face's."""
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(b"a dog\na cat\n"))
    (tmp_path / "a.de").write_text("ein Hund\neine Katze\n")
    (tmp_path / "news.jsonl").write_text('{"text": "a", "summary": "b", "id": 1}\n')
    rows = writing.read_rows([tmp_path / "a.en.gz", tmp_path / "a.de"], ["en", "de"])
    assert rows == [{"en": "a dog", "de": "ein Hund"}, {"en": "a cat", "de": "eine Katze"}]
    assert writing.read_rows([tmp_path / "news.jsonl"], ["text", "summary"]) == [{"text": "a", "summary": "b"}]
    for task, files in {"translation": [tmp_path / "a.en.gz", tmp_path / "a.de"], "summarization": []}.items():
        options = writing.parser().parse_args([task, "--files", *map(str, files), "x", "--columns", "en", "de"])
        assert parse(writing.TASKS[task][0], writing.flags_of(options)).do_predict
    again = writing.measured_again("summarization", ["A dog barks."] * 2, ["A dog."] * 2)
    assert again == pytest.approx(rouge_measures(["A dog barks."], ["A dog."]))
    texts = ["der Hund singt dort", "der Hund"], ["der Hund singt dort", "ein Hund"]
    assert writing.measured_again("translation", *texts) == pytest.approx(bleu_measures(*texts))


class TwoTokens:
    """A model of two rows of two tokens, of which the last is padding."""

    batch = {"input_ids": np.ones((2, 2), "int64"), "attention_mask": np.array([[1, 1], [1, 0]])}

    def save_pretrained(self, folder):
        folder.mkdir(parents=True)

    def __call__(self, batch):
        return {"logits": tf.reshape(tf.range(12.0), (2, 2, 3)), "loss": tf.constant(0.5)}


@pytest.mark.parametrize(
    ("place", "loss", "keys", "outputs", "complaint"),
    [
        ((1, 1, 0), 0.5, {}, 0.0, None),
        ((1, 0, 2), 0.5, {}, 1.0, r"two/tokens \(TwoTokens\): outputs 1.0e\+00, losses 0.0e\+00"),
        ((1, 1, 0), 0.75, {}, 0.0, r"losses 2.5e-01"),
        ((1, 1, 0), np.nan, {}, 0.0, r"losses nan"),
        ((1, 1, 0), 0.5, {"missing_keys": ["head.weight"]}, 0.0, r"\): missing_keys head.weight; outputs 0.0e\+00"),
    ],
    ids=["padding", "logits", "loss", "no number", "keys"],
)
def test_the_way_back_finds_keys_and_differences(monkeypatch, capsys, place, loss, keys, outputs, complaint):
    def load_in_pytorch(folder):
        (folder / "two.tokens" / "keys.json").write_text(json.dumps({"unexpected_keys": [], **keys}))
        logits = np.arange(12.0).reshape(2, 2, 3)
        logits[place] += 1.0
        np.savez(folder / "two.tokens" / "outputs-0.npz", logits=logits, loss=loss, other=1)

    monkeypatch.setattr(way_back, "load_in_pytorch", load_in_pytorch)
    model = TwoTokens()
    monkeypatch.setattr(way_back, "tiny_models", lambda families: [way_back.Case("two/tokens", model, [model.batch])])
    monkeypatch.setattr(sys, "argv", ["way_back"])
    with contextlib.nullcontext() if complaint is None else pytest.raises(SystemExit, match=complaint):
        way_back.main()
    assert f"| two | 1 | 1 | {len(keys)} | {outputs:.1e} | " in capsys.readouterr().out

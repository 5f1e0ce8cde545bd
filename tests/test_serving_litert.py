"""LiteRT files: what they give equals what the models give, in a process without tfheads."""

import json
import subprocess
import sys

import numpy as np
import pytest

import tfheads_command
from tests.fixtures import pipeline_cases
from tests.rebuilt_models import BERT, DISTILBERT, rebuilt

ROBERTA = {**BERT, "vocab_size": 287, "max_position_embeddings": 50, "pad_token_id": 1}
BLOOM = {"vocab_size": 105, "hidden_size": 32, "n_layer": 1, "n_head": 4}
MODELS = {
    "BertForSequenceClassification": BERT,
    "RobertaForQuestionAnswering": ROBERTA,
    "DistilBertModel": DISTILBERT,
    "AlbertForTokenClassification": {**BERT, "embedding_size": 16},
    "GPT2LMHeadModel": {**pipeline_cases.GPT2, "n_layer": 1},
    "BloomForSequenceClassification": {**BLOOM, "pad_token_id": 3},
}
PROGRAM = """
import json, sys, warnings
import numpy as np, tensorflow as tf
warnings.simplefilter("ignore")
answers = []
for path, inputs in json.load(open(sys.argv[1])):
    runner = tf.lite.Interpreter(model_path=path).get_signature_runner("serving_default")
    found = runner(**{name: np.array(value, "int32") for name, value in inputs.items()})
    answers.append({name: value.tolist() for name, value in found.items()})
print(json.dumps([answers, "tfheads" in sys.modules]))
"""


def inputs_of(model, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens, of which the last row has fewer."""
    ids = np.random.RandomState(length).randint(4, 100, [rows, length])
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    mask[-1, length // 2 :] = 0
    types[:, 3:] = 1
    known = {"input_ids": np.where(mask, ids, 3), "attention_mask": mask, "token_type_ids": types}
    names = model.token_level_inputs.items()
    return {name: np.stack([known[name]] * 2, 1) if axes == 3 else known[name] for name, axes in names}


@pytest.mark.slow
def test_lite_models_give_what_the_models_give(tmp_path):
    models = {name: rebuilt(name, config) for name, config in MODELS.items()}
    calls = []
    for name, model in models.items():
        path = model.export_litert(tmp_path / f"{name}.tflite")
        calls += [(name, path, inputs_of(model, *shape)) for shape in ((1, 4), (3, 40))]
    (tmp_path / "calls.json").write_text(
        json.dumps([[path, {key: value.tolist() for key, value in inputs.items()}] for _, path, inputs in calls])
    )
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "calls.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers, knows_tfheads = json.loads(done.stdout.splitlines()[-1])
    assert not knows_tfheads
    for (name, _, inputs), answer in zip(calls, answers, strict=True):
        expected = models[name](inputs)
        assert answer and set(answer) <= set(expected)
        for key, value in answer.items():
            np.testing.assert_allclose(value, expected[key].numpy(), atol=1e-5, err_msg=name)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    model, path = rebuilt("DistilBertForMaskedLM", DISTILBERT), tmp_path / "models" / "small.tflite"
    model.save_pretrained(tmp_path / "checkpoint")
    command = ["export", str(tmp_path / "checkpoint"), str(path), "--litert"]
    assert tfheads_command.main(command) == 0 and f"wrote {path}" in capsys.readouterr().out
    assert path.read_bytes()[4:8] == b"TFL3" and [one.name for one in path.parent.iterdir()] == [path.name]
    with pytest.raises(FileExistsError, match="give another path, or overwrite=True"):
        model.export_litert(path)
    assert tfheads_command.main([*command, "--top-k", "3"]) == 1
    assert "top_k must not be given with --litert" in capsys.readouterr().err
    monkeypatch.setattr("tfheads.serving.litert.TOLERANCE", -1.0)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="DistilBertForMaskedLM gives other logits as a LiteRT file"):
        model.export_litert(path, overwrite=True)
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_needs_other_operations_is_refused(tmp_path, monkeypatch):
    import tensorflow as tf

    model = rebuilt("DistilBertForMaskedLM", DISTILBERT)
    forward = model.forward

    def with_betainc(inputs, **options):
        output, rest = forward(inputs, **options)
        return {**output, "logits": tf.math.betainc(1.0, 1.0, tf.sigmoid(output["logits"]))}, rest

    monkeypatch.setattr(model, "forward", with_betainc)
    with pytest.raises(ValueError, match="cannot be a LiteRT file, which has no operation Betainc"):
        model.export_litert(tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())

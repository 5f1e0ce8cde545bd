"""The `tfheads` command: help, verify, export, exit codes and messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
import tfheads_command
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.quick_cases import slow_but_these
from tests.rebuilt_models import rebuilt
from tfheads import verification
from tfheads.verification import class_for

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    model = rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2)
    model.save_pretrained(directory, tokenizer=tiny_tokenizers.byte_level_bpe())
    return str(directory)


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A checkpoint to damage, its config.json changed by the values given."""

    def changed(**values):
        for path in Path(checkpoint).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **values}))
        return tmp_path

    return changed


def run(capfd, *arguments) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    capfd.readouterr()
    code = tfheads_command.main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def lines(out: str) -> dict[str, str]:
    """The report's lines: name of the check to its mark and text."""
    marked = [line.split(None, 2) for line in out.splitlines()[:-1]]
    return {name: f"{mark} {text}" for mark, name, text in marked}


def test_help_explains_itself_without_tensorflow():
    script = (
        "import sys, tfheads_command\n"
        "try: tfheads_command.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'tensorflow', 'keras', 'tfheads', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for words in ("verify", "export", "tfheads verify openai-community/gpt2", "Hugging Face"):
        assert words in done.stdout


def test_the_command_is_installed_and_the_package_runs_as_a_module():
    declared = (ROOT / "setup.cfg").read_text()
    assert "tfheads = tfheads_command:main" in declared and "py_modules = tfheads_command" in declared
    command = [sys.executable, "-m", "tfheads", "export", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False)
    assert done.returncode == 0 and "--max-new-tokens" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["verfy", "x"], ["verify"], ["export", "x"], ["verify", "x", "--clas"]])
def test_wrong_usage_is_exit_code_2(arguments, capfd):
    with pytest.raises(SystemExit) as end:
        tfheads_command.main(arguments)
    assert end.value.code == 2 and "usage: tfheads" in capfd.readouterr().err


def test_verify_accounts_for_everything(checkpoint, capfd):
    code, out, _ = run(capfd, "verify", checkpoint)
    report = lines(out)
    assert code == 0 and out.endswith("all is well\n")
    assert report["family"] == "ok gpt2 (GPT2)" and report["class"] == "ok GPT2LMHeadModel (causal-lm)"
    count = rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2).count_params()
    assert report["weights"] == f"ok 28 tensors (float32): 28 are 36 variables of {count:,} numbers"
    assert report["tokenizer"].startswith("ok GPT2Tokenizer with ids up to 282, the token table has 283 rows")
    assert "eos_token_id=282" in report["generation"] and "logits" in report


NOTHING = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
"""What transformers reports of a checkpoint that fits."""


@pytest.mark.parametrize(("distance", "ok"), [(0.0, True), (5e-5, True), (1e-3, False), (np.nan, False)])
def test_verify_compares_with_pytorch_where_it_is_installed(checkpoint, monkeypatch, distance, ok):
    model = tfheads.AutoModelForCausalLM.from_pretrained(checkpoint)

    def from_torch(class_name, directory, batches):
        assert (class_name, directory, len(batches)) == ("GPT2LMHeadModel", checkpoint, 3)
        outputs = [model(batch).logits.numpy() for batch in batches]
        outputs[1][0, 0, 0] += distance
        outputs[2][2, -1, :] += 9.0  # padding is nobody's business
        return [{"logits": logits} for logits in outputs], NOTHING

    monkeypatch.setattr(verification, "_from_torch", from_torch)
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: name == "torch")
    keys, check = list(verification.verify(checkpoint))[-2:]
    assert (
        keys.name == "PyTorch" and keys.ok and keys.text == "transformers has a place for each tensor and misses none"
    )
    assert check.name == "logits" and check.ok is ok and "from PyTorch's, tolerance" in check.text


@pytest.mark.parametrize(
    "class_name",
    slow_but_these(
        ["GPT2DoubleHeadsModel", "GPT2Model"],
        ["GPT2DoubleHeadsModel", "GPT2ForQuestionAnswering", "GPT2ForSequenceClassification", "GPT2Model"],
    ),
)
def test_verify_compares_every_output_of_every_head(class_name, tmp_path, monkeypatch):
    config = transformers.GPT2Config(**{**pipeline_cases.GPT2, "pad_token_id": 0})
    model = getattr(tfheads, class_name).from_config(config, seed=0)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: name == "torch")
    names = [criterion.logits for criterion in model.criteria] or ["last_hidden_state"]
    for changed in (None, *names):

        def from_torch(class_name, directory, batches, changed=changed):
            if class_name == "GPT2DoubleHeadsModel":  # which transformers would take from the padding
                assert [batch["mc_token_ids"][..., 0].tolist() for batch in batches] == [[1], [31], [31, 20, 9]]
            return [{n: v.numpy() + (n == changed) for n, v in model(batch).items()} for batch in batches], NOTHING

        monkeypatch.setattr(verification, "_from_torch", from_torch)
        assert list(verification.verify(str(tmp_path)))[-1].ok is (changed is None)


def test_verify_gives_each_row_the_end_token_at_which_it_is_classified(tmp_path):
    names = ("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads")
    sizes = {**dict.fromkeys(names, 1), **dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 8)}
    config = transformers.BartConfig(vocab_size=12, max_position_embeddings=32, **sizes)
    tfheads.BartForSequenceClassification.from_config(config, seed=0).save_pretrained(tmp_path)
    assert list(verification.verify(str(tmp_path)))[-1].ok is not False


def test_verify_finds_what_pytorch_misses_or_does_not_expect(tmp_path, monkeypatch):
    """Tensors of another head are none of these."""
    config = transformers.GPT2Config(**{**pipeline_cases.GPT2, "num_labels": 1})
    tfheads.GPT2DoubleHeadsModel.from_config(config, seed=0).save_pretrained(tmp_path)
    model = tfheads.GPT2LMHeadModel.from_pretrained(tmp_path)

    def from_torch(class_name, directory, batches):
        unexpected = {"multiple_choice_head.summary.bias", "transformer.wpe.weight", "transformer.ln_f.bias"}
        report = {**NOTHING, "missing_keys": {"lm_head.bias"}, "unexpected_keys": unexpected}
        return [{"logits": model(batch).logits.numpy()} for batch in batches], report

    monkeypatch.setattr(verification, "_from_torch", from_torch)
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: name == "torch")
    keys, logits = list(verification.verify(str(tmp_path), "GPT2LMHeadModel"))[-2:]
    assert not keys.ok and logits.ok
    wrong = "misses lm_head.bias and has no place for transformer.ln_f.bias, transformer.wpe.weight"
    assert keys.text == f"transformers {wrong}"


def test_verify_reports_other_classes_and_heads(checkpoint, copy, capfd):
    code, out, _ = run(capfd, "verify", checkpoint, "--class", "AutoModel")
    assert code == 0 and lines(out)["class"] == "ok GPT2Model (base)" and "generation" not in lines(out)
    code, out, _ = run(capfd, "verify", copy(architectures=["GPT2ForSpeech"]))
    assert code == 0
    assert lines(out)["class"].startswith("- GPT2Model, for config.json names GPT2ForSpeech, which tfheads does")
    untied = copy(tie_word_embeddings=False)
    code, out, _ = run(capfd, "verify", untied)
    assert code == 1 and "1 variables of the head are not in the checkpoint" in lines(out)["weights"]


def test_verify_finds_what_does_not_fit(copy, capfd):
    code, out, _ = run(capfd, "verify", copy(n_layer=3))
    assert code == 1 and "missing" in lines(out)["weights"] and "h.2." in lines(out)["weights"]
    code, out, _ = run(capfd, "verify", copy(n_layer=1))
    assert code == 1 and "unexpected" in lines(out)["weights"]
    code, out, _ = run(capfd, "verify", copy(n_positions=40))
    assert code == 1 and "wpe.weight has the shape (48, 36)" in lines(out)["weights"]


def test_verify_looks_at_tokenizer_and_generation_config(copy, capfd):
    directory = copy()
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 283]}))
    tokenizer = tiny_tokenizers.byte_level_bpe()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(directory)
    code, out, _ = run(capfd, "verify", directory)
    report = lines(out)
    assert code == 1 and out.endswith("2 of the checks failed\n")
    assert "ids up to 283" in report["tokenizer"] and "some ids have no row" in report["tokenizer"]
    assert "eos_token_id 283 is no token id" in report["generation"]
    for path in directory.glob("*token*"):
        path.unlink()
    assert lines(run(capfd, "verify", directory)[1])["tokenizer"] == "- none beside the model"


def test_verify_errors_are_one_line(checkpoint, copy, tmp_path, capfd):
    for arguments, message in (
        ([tmp_path / "nothing"], "nothing"),
        ([checkpoint, "--class", "GPT2LMHead"], "'GPT2LMHead' is not known, the nearest is 'GPT2LMHeadModel'"),
        ([checkpoint, "--class", "BertModel"], "config must be of model_type 'bert' for BertModel, got 'gpt2'"),
        ([copy(model_type="gpt3")], "model_type 'gpt3' is not supported"),
    ):
        code, out, err = run(capfd, "verify", *arguments)
        assert code == 1 and out == "" and message in err and err.count("\n") == 1 and err.startswith("tfheads: ")


def test_a_truncated_file_is_one_line(copy, capfd):
    directory = copy()
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[:-100])
    code, _, err = run(capfd, "verify", directory)
    assert code == 1 and "model.safetensors" in err and "Traceback" not in err


def test_class_for_prefers_what_was_asked_for():
    config = transformers.GPT2Config(architectures=["GPT2LMHeadModel"])
    assert class_for(config, None).__name__ == "GPT2LMHeadModel"
    assert class_for(config, "TFGPT2Model").__name__ == "GPT2Model"
    assert class_for(transformers.BertConfig(), None).__name__ == "BertModel"


def test_export_writes_what_the_method_writes(checkpoint, tmp_path, capfd):
    code, out, _ = run(capfd, "export", checkpoint, tmp_path / "m", "--version", 3, "--token-level")
    assert code == 0 and f"wrote {tmp_path / 'm' / '3'}" in out and f"tfheads serve {tmp_path / 'm'}" in out
    signatures = tf.saved_model.load(str(tmp_path / "m" / "3")).signatures
    logits = signatures["serving_default"](input_ids=[[1, 2]], attention_mask=[[1, 1]])["logits"]
    model = tfheads.AutoModelForCausalLM.from_pretrained(checkpoint)
    np.testing.assert_allclose(logits, model([[1, 2]]).logits, atol=1e-5)
    code, _, err = run(capfd, "export", checkpoint, tmp_path / "m", "--version", 3, "--token-level")
    assert code == 1 and "exists" in err


def test_export_hands_its_options_on(checkpoint, tmp_path, capfd, monkeypatch):
    seen = {}

    def export(model, directory, tokenizer, version, overwrite, options):
        seen.update(directory=directory, tokenizer=tokenizer, version=version, overwrite=overwrite, options=options)
        return str(tmp_path)

    monkeypatch.setattr("tfheads.serving.export.export", export)
    options = ["--max-new-tokens", 9, "--do-sample", "--temperature", 0.5, "--top-k", 4, "--overwrite"]
    code, _, _ = run(capfd, "export", checkpoint, tmp_path / "m", *options)
    assert code == 0 and seen == {
        "directory": str(tmp_path / "m"),
        "tokenizer": checkpoint,
        "version": 1,
        "overwrite": True,
        "options": {"max_new_tokens": 9, "do_sample": True, "temperature": 0.5, "top_k": 4},
    }

"""The scripts in training/, in this process: what a mistake in the data says, and what keeps its traceback."""

import runpy
import sys
from pathlib import Path

import datasets
import pytest

from tests.fixtures import tiny_tokenizers
from tfheads.recipes.training import TrainingRun

TRAINING = Path(__file__).parent.parent / "training"
SCRIPTS = sorted(path.name for path in TRAINING.glob("run_*.py"))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script with flags as its program; gives the status and the lines on the standard error stream."""
    monkeypatch.syspath_prepend(str(TRAINING))
    datasets.disable_progress_bars()

    def call(script: str, **flags) -> tuple[int, list[str]]:
        words = [f"--{name}={value}" for name, value in flags.items()]
        monkeypatch.setattr(sys, "argv", [str(TRAINING / script), *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TRAINING / script), run_name="__main__")
        return ended.value.code, capsys.readouterr().err.splitlines()

    yield call
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A directory with texts, good and bad ones, and a tokenizer."""
    directory = tmp_path_factory.mktemp("corpus")
    (directory / "good.txt").write_text("the cat sat on the mat, the dog ran over the house\n" * 40)
    (directory / "named").mkdir()
    (directory / "named" / "validation.jsonl").write_text('{"text": "the cat", "label": 1}\n')
    (directory / "blank.txt").write_text("\n \n")
    (directory / "latin.txt").write_bytes("schön\n".encode("latin-1"))
    tiny_tokenizers.byte_level_bpe().save_pretrained(directory / "tokenizer")
    return directory


def flags(corpus, output, **changes) -> dict:
    values = {"model_type": "gpt2", "config_overrides": "n_layer=1,n_embd=8,n_head=2,n_positions=16"}
    values |= {"tokenizer_name": corpus / "tokenizer", "train_file": corpus / "good.txt", "output_dir": output}
    return {**values, "do_train": "true", "block_size": 8, "jit_compile": "false", **changes}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_ends_with_one_line_at_a_mistake(script, run, corpus, tmp_path):
    """One that shows only when the run is prepared."""
    (tmp_path / "taken").write_text("")
    values = flags(corpus, tmp_path / "taken")
    del values["block_size"]
    languages = {"source_lang": "en", "target_lang": "de"} if script == "run_translation.py" else {}
    status, lines = run(script, **values, **languages)
    assert (status, len(lines)) == (2, 1)
    assert lines[0] == f"{script}: error: output_dir must be a directory, {tmp_path / 'taken'} is a file"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_file": "blank.txt"}, "the corpus is empty: no row of the train split has any text."),
        ({"train_file": "latin.txt"}, "latin.txt is not UTF-8 text: byte 0xf6 at offset 3, line 1; convert"),
        ({"train_file": "absent.txt"}, "no file, folder or pattern matches"),
        ({"block_size": 17}, "block_size=17 is beyond the model's position limit of 16 tokens; give at most 16."),
        ({"text_column": "story"}, "there is no column 'story', the columns are text."),  # a KeyError, without quotes
        ({"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": "num_decay_steps=9999"}, "between 0 and"),
        ({"resume_from_checkpoint": "nowhere"}, "resume_from_checkpoint must be a directory, nowhere does not exist"),
        ({"blok_size": 8}, "flag --blok_size is not known, the nearest known one is 'block_size'"),
        ({"strategy": "multi_worker"}, "got none"),
    ],
)
def test_what_bad_data_says(changes, message, run, corpus, tmp_path):
    if "train_file" in changes:
        changes = {"train_file": corpus / changes["train_file"]}
    changes = {"validation_split_percentage": 0, **changes}
    status, lines = run("run_clm.py", **flags(corpus, tmp_path / "out", **changes))
    assert (status, len(lines)) == (2, 1), lines
    assert lines[0].startswith("run_clm.py: error: ") and message in lines[0]
    assert '"' not in lines[0] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("script", "what"), [("run_clm.py", "text"), ("run_glue.py", "data")])
def test_a_dataset_without_a_train_split(script, what, run, corpus, tmp_path):
    values = {**flags(corpus, tmp_path / "out"), "train_file": "none", "dataset_name": corpus / "named"}
    if script == "run_glue.py":
        del values["block_size"]
    status, lines = run(script, **values)
    assert (status, lines) == (2, [f"{script}: error: there is no train {what}: give a dataset with a split train"])


def test_what_fails_in_the_training_keeps_its_traceback(run, corpus, tmp_path, monkeypatch):
    def fail(self):
        raise ValueError("of the training")

    monkeypatch.setattr(TrainingRun, "run", fail)
    with pytest.raises(ValueError, match="of the training"):
        run("run_clm.py", **flags(corpus, tmp_path))


def test_a_fault_of_the_program_keeps_its_traceback(run, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("tfheads.recipes.language_modelling.load_model", lambda *arguments: {}["weights"])
    with pytest.raises(KeyError, match="weights"):
        run("run_clm.py", **flags(corpus, tmp_path / "out"))

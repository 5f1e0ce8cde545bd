"""Model cards: front matter that the Hub understands, and no card by another hand is replaced."""

import ast
import re
from types import SimpleNamespace

import pytest
import transformers
from huggingface_hub import ModelCard

import tfheads
from tfheads import registry
from tfheads.checkpoints.model_card import MARK, card_of, is_generated, is_hub_id, model_card, write_model_card


def full_card(**changes):
    arguments = {
        "task": "causal-lm",
        "architecture": "GPT2LMHeadModel",
        "parameters": 1234567,
        "base_model": "openai-community/gpt2",
        "dataset": "Salesforce/wikitext",
        "dataset_config": "wikitext-2-raw-v1",
        "dataset_split": "validation",
        "language": "en",
        "license": "mit",
        "tags": ["generated_from_keras_callback"],
        "metrics": {"eval_loss": 3.25, "perplexity": 25.790339},
        "history": {"loss": [4.0, 3.5], "val_loss": [3.75, 3.25]},
        "hyperparameters": {"learning_rate": 5e-05, "optimizer": "AdamW", "seed": 42, "jit": True},
        "description": "Writes encyclopedia articles.",
    }
    return model_card("someone/model", **(arguments | changes))


def test_the_front_matter(tmp_path):
    data = ModelCard(full_card()).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.base_model == "openai-community/gpt2"
    assert data.datasets == ["Salesforce/wikitext"]
    assert data.language == "en"
    assert data.license == "mit"
    assert data.tags == ["tfheads", "keras", "tensorflow", "generated_from_keras_callback"]
    assert data.metrics == ["perplexity"]
    assert data.model_name == "someone/model"
    results = {result.metric_type: result for result in data.eval_results}
    assert results["perplexity"].metric_value == 25.790339
    assert results["perplexity"].dataset_type == "Salesforce/wikitext"
    assert results["perplexity"].dataset_config == "wikitext-2-raw-v1"
    assert results["perplexity"].dataset_split == "validation"
    assert results["loss"].metric_value == 3.25


def test_the_text():
    card = full_card()
    assert "# model\n" in card
    assert "`GPT2LMHeadModel` with 1,234,567 parameters" in card
    assert "[openai-community/gpt2](https://huggingface.co/openai-community/gpt2)" in card
    assert "[Salesforce/wikitext](https://huggingface.co/datasets/Salesforce/wikitext)" in card
    assert "- Perplexity: 25.7903" in card
    assert "- learning_rate: 5e-05\n- optimizer: AdamW\n- seed: 42\n- jit: True" in card
    assert "| epoch | loss | val_loss |\n|---:|---:|---:|\n| 1 | 4 | 3.75 |\n| 2 | 3.5 | 3.25 |" in card
    assert re.search(r"- keras \d", card)
    assert re.search(r"- tensorflow \d", card)
    assert re.search(r"- tfheads \d", card)
    assert "Writes encyclopedia articles." in card


@pytest.mark.parametrize(
    ("task", "name"),
    [("causal-lm", "AutoModelForCausalLM"), ("masked-lm", "AutoModelForMaskedLM"), ("base", "AutoModel")],
)
def test_the_code_is_right(task, name):
    blocks = re.findall(r"```python\n(.*?)```", full_card(task=task), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)
        assert f'{name}.from_pretrained("someone/model")' in block
    assert hasattr(transformers, name)


@pytest.mark.parametrize("task", registry.TASKS)
def test_the_code_names_classes_that_there_are(task):
    blocks = re.findall(r"```python\n(.*?)```", full_card(task=task), re.DOTALL)
    for package, block in zip((tfheads, transformers), blocks, strict=False):
        names = re.findall(r"(\w+)\.from_pretrained\(\"someone", ast.unparse(ast.parse(block)).replace("'", '"'))
        assert names and all(hasattr(package, name) for name in names)


def test_a_name_with_quotes_is_still_code():
    for block in re.findall(r"```python\n(.*?)```", model_card('a"b', task="base"), re.DOTALL):
        ast.parse(block)


def test_what_is_not_known_is_not_said():
    card = model_card("model", task="masked-lm")
    data = ModelCard(card).data
    assert data.pipeline_tag == "fill-mask"
    assert data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    assert "None" not in card
    assert "Hyperparameters" not in card
    assert "Training data" not in card
    assert "Training results" not in card
    assert "saved with tfheads" in card
    assert "trained with tfheads" in full_card()


def test_paths_of_this_machine_stay_out(tmp_path):
    (tmp_path / "corpus").mkdir()
    card = full_card(base_model=str(tmp_path / "model"), dataset=[str(tmp_path / "corpus"), "/data/secret/text.txt"])
    data = ModelCard(card).data
    assert data.base_model is None
    assert data.datasets is None
    assert str(tmp_path) not in card
    assert "/data/secret" not in card
    assert "a local checkpoint" in card
    assert "`text.txt`" in card
    assert {result.dataset_name for result in data.eval_results} == {"corpus"}


def test_names_of_files_are_not_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "model").mkdir(parents=True)
    assert is_hub_id("gpt2")
    assert is_hub_id("someone/model")
    for name in ("out/model", "train.txt", "/absolute", "a/b/c", ""):
        assert not is_hub_id(name)


def test_numbers_that_are_not_finite():
    card = full_card(metrics={"loss": float("nan"), "perplexity": float("inf"), "accuracy": 0.5})
    assert [result.metric_type for result in ModelCard(card).data.eval_results] == ["accuracy"]
    assert "- Loss: nan" in card


def test_a_history_of_mappings():
    rows = [{"epoch": 0.5, "loss": 2.0}, {"epoch": 1, "loss": 1.0, "a|b": "x\ny"}]
    assert "| epoch | loss | a\\|b |" in full_card(history=rows)
    assert "| 0.5 | 2 |  |\n| 1 | 1 | x y |" in full_card(history=rows)


class Model:
    def __init__(self, base_model=""):
        self.config = SimpleNamespace(_name_or_path=base_model)
        self.task = "causal-lm"

    def count_params(self):
        return 42


def test_the_card_of_a_model():
    card = card_of(Model("someone/base"), "someone/new", license="mit")
    assert "`Model` with 42 parameters" in card
    assert ModelCard(card).data.base_model == "someone/base"
    assert ModelCard(card).data.license == "mit"


def test_only_generated_cards_are_replaced(tmp_path):
    staging, target = tmp_path / "staging", tmp_path / "target"
    staging.mkdir()
    target.mkdir()
    assert write_model_card(Model(), staging, target)
    text = (staging / "README.md").read_text()
    assert is_generated(text)
    assert "# target" in text
    (staging / "README.md").replace(target / "README.md")
    assert write_model_card(Model(), staging, target)
    (staging / "README.md").unlink()

    (target / "README.md").write_text(text.replace(MARK, "") + "My own words.")
    assert not write_model_card(Model(), staging, target)
    assert not write_model_card(Model(), staging, target, full_card())
    assert not (staging / "README.md").exists()
    # A text that does not come from here was chosen by the user.
    assert write_model_card(Model(), staging, target, "# Mine")
    assert (staging / "README.md").read_text() == "# Mine"

"""Every code block of README and docs runs: Python in one module for each page, commands through their parsers."""

import re
import shlex
import sys
import types
from collections.abc import Collection
from pathlib import Path

import pytest
import tensorflow as tf
import transformers

import tfheads
import tfheads_command
from tests.fake_hub import fake_hub
from tests.fixtures import tiny_tokenizers
from tfheads import registry
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece
from tfheads.recipes.arguments import (
    CausalLanguageModellingArguments,
    MaskedLanguageModellingArguments,
    QuestionAnsweringArguments,
    TextClassificationArguments,
    TokenClassificationArguments,
)
from tfheads.recipes.command_line import parse
from tfheads.recipes.conditional_generation import ConditionalGenerationArguments
from tfheads.recipes.document_classification import DocumentClassificationArguments
from tfheads.recipes.multiple_choice import MultipleChoiceArguments
from tfheads.recipes.pre_training import PreTrainingArguments
from tfheads.recipes.summarization import SummarizationArguments
from tfheads.recipes.translation import TranslationArguments

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = {
    "training/run_clm.py": CausalLanguageModellingArguments,
    "training/run_mlm.py": MaskedLanguageModellingArguments,
    "training/run_glue.py": TextClassificationArguments,
    "training/run_ner.py": TokenClassificationArguments,
    "training/run_qa.py": QuestionAnsweringArguments,
    "training/run_multiple_choice.py": MultipleChoiceArguments,
    "training/run_nsp_mlm.py": PreTrainingArguments,
    "training/run_document_classification.py": DocumentClassificationArguments,
    "training/run_conditional_generation.py": ConditionalGenerationArguments,
    "training/run_summarization.py": SummarizationArguments,
    "training/run_translation.py": TranslationArguments,
}
SLOW = ("generation.md", "pipelines.md", "serving.md", "tasks.md", "training.md")
OTHER_PROGRAMS = ("docker", "curl")  # not ours


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The blocks of a language with the lines they begin at."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 2, match[2]) for match in BLOCK.finditer(text) if match[1] == language
    ]


def with_blocks(language: str, slow: Collection[str] = ()) -> list:
    return [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in slow))
        for page in PAGES
        if blocks(page, language)
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A directory with what the pages name: tiny checkpoints under the names of published ones, and text."""
    directory = tmp_path_factory.mktemp("scene")
    words = [
        "the",
        "a",
        "cat",
        "dog",
        "bird",
        "sees",
        "hears",
        "follows",
        "small",
        "large",
        "red",
        "value",
        "expression",
    ]
    lines = [" ".join(words[(i * j + j) % len(words)] for j in range(1, 12)) + "\n" for i in range(80)]
    (directory / "my_text.txt").write_text("".join(lines))
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 64}
    bpe = train_byte_level_bpe(lines, 300)
    ends = {"bos_token_id": bpe.bos_token_id, "eos_token_id": bpe.eos_token_id}
    gpt2 = transformers.GPT2Config(vocab_size=len(bpe), **ends, **sizes)
    for name in ("openai-community/gpt2", "quickstart_output/gpt2"):
        tfheads.AutoModelForCausalLM.from_config(gpt2, seed=0).save_pretrained(directory / name, tokenizer=bpe)
    wordpiece = train_wordpiece(lines, 80)
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertConfig(vocab_size=len(wordpiece), **sizes)
    target = directory / "google-bert/bert-base-uncased"
    tfheads.AutoModelForMaskedLM.from_config(bert, seed=0).save_pretrained(target, tokenizer=wordpiece)
    unigram = tiny_tokenizers.unigram()
    sizes = {"num_layers": 1, "d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 32, "decoder_start_token_id": 0}
    parameters = {"translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 12}}
    t5 = transformers.T5Config(vocab_size=len(unigram), task_specific_params=parameters, **sizes)
    target = directory / "google-t5/t5-small"
    tfheads.AutoModelForSeq2SeqLM.from_config(t5, seed=0).save_pretrained(target, tokenizer=unigram)
    return directory


@pytest.fixture
def page_module(monkeypatch):
    """A module in which the blocks of a page run; families that they register are forgotten afterwards."""
    module = types.ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    before = {name: dict(getattr(registry, name)) for name in ("FAMILIES", "TASKS", "CLASSES")}
    yield module
    for name, content in before.items():
        getattr(registry, name).clear()
        getattr(registry, name).update(content)


@pytest.mark.parametrize("page", with_blocks("python", slow=SLOW))
def test_python_blocks_run(page, scene, page_module, monkeypatch, capsys):
    monkeypatch.chdir(scene)
    traced = tf.function  # XLA's work would be most of the time, and is tested elsewhere
    monkeypatch.setattr(tf, "function", lambda *arguments, jit_compile=None, **named: traced(*arguments, **named))
    with fake_hub():
        for line, code in blocks(page, "python"):
            # Blank lines in front, so that a traceback shows the line of the page.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), page_module.__dict__)


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_commands_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for _, text in blocks(page, "bash"):
        for command in text.strip().splitlines():
            check_command(shlex.split(command, comments=True))


def check_command(words: list[str]) -> None:
    """Fails if a command of the documentation could not be run as it stands."""
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(argument in targets for argument in arguments if "=" not in argument)
    elif program == "tfheads":
        assert tfheads_command.parser().parse_args(arguments).command == arguments[0]
    elif program == "python" and arguments[0] in SCRIPTS:
        assert (ROOT / arguments[0]).is_file()
        assert parse(SCRIPTS[arguments[0]], arguments[1:]).output_dir
    elif program == "python" and arguments[0] == "-m":
        assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file()
    else:
        assert program in OTHER_PROGRAMS, f"nothing checks {program!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        assert target.startswith("https://") or (page.parent / target).exists(), target

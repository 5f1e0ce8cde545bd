"""The arguments of the recipes: YAML, flags, types, limits, and what an error says."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tfheads.recipes.arguments import (
    CausalLanguageModellingArguments,
    MaskedLanguageModellingArguments,
    QuestionAnsweringArguments,
    TextClassificationArguments,
    TokenClassificationArguments,
)
from tfheads.recipes.command_line import help_text, parse, parse_or_exit
from tfheads.recipes.conditional_generation import ConditionalGenerationArguments
from tfheads.recipes.document_classification import DocumentClassificationArguments
from tfheads.recipes.multiple_choice import MultipleChoiceArguments
from tfheads.recipes.pre_training import PreTrainingArguments
from tfheads.recipes.refused_flags import refusal
from tfheads.recipes.summarization import SummarizationArguments
from tfheads.recipes.translation import TranslationArguments

CONFIGS = Path(__file__).parent.parent / "configs"
MINIMUM = ["--model_name_or_path", "model", "--train_file", "a.txt", "--output_dir", "out", "--do_train"]


def causal(*flags):
    return parse(CausalLanguageModellingArguments, [*MINIMUM, *flags])


def written(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


CLASSES = {
    "clm": CausalLanguageModellingArguments,
    "mlm": MaskedLanguageModellingArguments,
    "glue": TextClassificationArguments,
    "ner": TokenClassificationArguments,
    "qa": QuestionAnsweringArguments,
    "choice": MultipleChoiceArguments,
    "nsp": PreTrainingArguments,
    "document": DocumentClassificationArguments,
    "conditional": ConditionalGenerationArguments,
    "summarization": SummarizationArguments,
    "translation": TranslationArguments,
}
"""The arguments of a configuration, by the first part of its name that says which recipe it is for."""


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_every_config_loads(path):
    recipe = next(word for word in path.stem.split("_") if word in CLASSES)
    arguments = parse(CLASSES[recipe], [str(path)])
    assert arguments.do_train
    assert arguments.output_dir.endswith((path.stem, "quickstart_output/gpt2", "quickstart_output/bert"))
    assert 0 < arguments.learning_rate <= 2e-3


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    text = "model_type: gpt2\ntokenizer_name: t\ntrain_file: a.txt\noutput_dir: o\ndo_train: yes\n"
    path = written(tmp_path, text + "learning_rate: 5e-4\nseed: 7\neval_strategy: no\n")
    arguments = parse(CausalLanguageModellingArguments, [path, "--seed=8", "--max-steps", "20"])
    assert (arguments.learning_rate, arguments.seed, arguments.max_steps) == (5e-4, 8, 20)
    assert arguments.train_file == ["a.txt"] and arguments.do_train and arguments.eval_strategy == "no"
    assert arguments.adam_beta2 == 0.999


def test_the_forms_of_values():
    arguments = causal(
        *["--bf16", "--no_jit_compile", "--do_eval=true", "--report_to", "wandb", "tensorboard"],
        *["--eval_steps", "none", "--max_steps", "-1", "--num_train_epochs", "0.5"],
    )
    assert arguments.bf16 and not arguments.jit_compile and arguments.do_eval
    assert arguments.report_to == ["wandb", "tensorboard"]
    assert arguments.eval_steps is None and arguments.max_steps == -1 and arguments.num_train_epochs == 0.5
    assert arguments.policy == "mixed_bfloat16"


def test_overrides_in_both_forms(tmp_path):
    text = "model_type: gpt2\ntokenizer_name: t\ntrain_file: a\noutput_dir: o\ndo_train: true\n"
    path = written(tmp_path, text + "config_overrides: {n_layer: 2, activation_function: relu}\n")
    assert parse(CausalLanguageModellingArguments, [path]).config_overrides["n_layer"] == 2
    flag = ["--config_overrides", "n_layer=3,resid_pdrop=0.5,activation_function=relu"]
    overrides = parse(CausalLanguageModellingArguments, [path, *flag]).config_overrides
    assert overrides == {"n_layer": 3, "resid_pdrop": 0.5, "activation_function": "relu"}
    for flag in ("layer_norm_epsilon=1e-7", '{"layer_norm_epsilon": 1e-7}'):  # YAML takes the first for text
        given = parse(CausalLanguageModellingArguments, [path, "--config_overrides", flag]).config_overrides
        assert given == {"layer_norm_epsilon": 1e-7}


def test_the_names_of_older_releases():
    flags = ["--evaluation_strategy", "epoch", "--push_to_hub", "--push_to_hub_model_id", "me/model"]
    arguments = causal(*flags)
    assert arguments.eval_strategy == "epoch" and arguments.hub_model_id == "me/model"


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--learning_rat", "1"], ValueError, "nearest known one is 'learning_rate'"),
        (["--blok_size", "8"], ValueError, "nearest known one is 'block_size'"),
        (["--seed", "1", "--seed", "2"], ValueError, "--seed is given twice"),
        (["--eval_strategy", "no", "--evaluation_strategy", "no"], ValueError, "--eval_strategy is given twice"),
        (["--seed", "1", "2"], ValueError, "--seed takes one value, got '1' '2'"),
        (["--seed"], ValueError, "--seed needs a value: a whole number"),
        (["--seed", "1.5"], TypeError, "seed must be a whole number, got '1.5'"),
        (["--learning_rate", "fast"], TypeError, "learning_rate must be a number, got 'fast'"),
        (["--learning_rate", "nan"], ValueError, "learning_rate must be at least 0, got nan"),
        (["--learning_rate", "-1"], ValueError, "learning_rate must be at least 0, got -1.0"),
        (["--adam_beta1", "1"], ValueError, "adam_beta1 must be at least 0 and below 1, got 1.0"),
        (["--block_size", "1"], ValueError, "block_size must be at least 2, got 1"),
        (["--do_eval", "perhaps"], TypeError, "do_eval must be true or false, got 'perhaps'"),
        (["--no_do_eval", "true"], ValueError, "--no_do_eval takes no value"),
        (["--lr_scheduler_type", "wild"], ValueError, "lr_scheduler_type must be one of linear, cosine, constant"),
        (["--report_to", "wandb", "mail"], TypeError, "report_to must be one or more of: none, wandb"),
        (["--config_overrides", "n_layer"], TypeError, "config_overrides must be name=value"),
        (["--config_overrides", "n_layer=2"], ValueError, "config_overrides is for models with new weights"),
        (["--bf16", "--fp16"], ValueError, "give bf16 or fp16"),
        (["--lr_scheduler_kwargs", "power=2"], ValueError, "'linear' does not have these options: power; it has none"),
        (["--lr_scheduler_kwargs", "{power: 2"], TypeError, "lr_scheduler_kwargs must be name=value,"),
        (["--logging_strategy", "often"], ValueError, "logging_strategy must be one of no, steps, epoch, got 'often'"),
        (
            ["--optim", "lamb"],
            ValueError,
            "optim must be one of adamw_torch, adamw_torch_fused, adafactor",
        ),
        (["--max_steps", "0"], ValueError, "max_steps must be at least 1, or -1"),
        (["--warmup_ratio", "0.1", "--warmup_steps", "5"], ValueError, "warmup_ratio or warmup_steps"),
        (["--streaming"], ValueError, "max_steps must be given with streaming"),
        (["--dataset_name", "x"], ValueError, "either dataset_name or train_file"),
        (["--hub_model_id", "me/x"], ValueError, "push_to_hub is not set"),
    ],
)
def test_a_wrong_flag_is_one_clear_sentence(flags, error, message):
    with pytest.raises(error) as caught:
        causal(*flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_of_transformers_are_taken_or_refused_with_a_reason(tmp_path):
    known = {name for field in dataclasses.fields(QuestionAnsweringArguments) for name in names_of(field)}
    flags = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    assert {flag for flag in flags - known if refusal(flag) is None} == set()
    assert {flag for flag in known if refusal(flag) is not None} == set()
    with pytest.raises(ValueError, match="flag --use_fast_tokenizer is not taken: tokenizers are always the fast"):
        causal("--use_fast_tokenizer", "true")
    with pytest.raises(ValueError, match="^key 'fsdp_config' in .* is not taken: strategy and num_replicas choose"):
        parse(CausalLanguageModellingArguments, [written(tmp_path, "fsdp_config: x.json")])


def names_of(field: dataclasses.Field) -> tuple[str, ...]:
    return (field.name, *field.metadata["also"])


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (["--model_name_or_path", "model"], "give model_name_or_path"),
        (["--train_file", "a.txt"], "give dataset_name, or train_file"),
        (["--output_dir", "out"], "output_dir must be given"),
        (["--do_train"], "set do_train or do_eval"),
    ],
)
def test_what_must_be_given(left_out, message):
    flags = " ".join(MINIMUM).replace(" ".join(left_out), "").split()
    with pytest.raises(ValueError, match=message):
        parse(CausalLanguageModellingArguments, flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 1", "key 'learning_rte' in .* the nearest known one is 'learning_rate'"),
        ("- a\n- b", "must hold lines of 'name: value', got list"),
        ("a: [", "is not a YAML file"),
        ("eval_strategy: no\nevaluation_strategy: no", "eval_strategy is given twice"),
    ],
)
def test_a_wrong_file(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parse(CausalLanguageModellingArguments, [written(tmp_path, text)])


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        parse(CausalLanguageModellingArguments, ["none.yaml"])


def test_a_yaml_file_runs_no_code(tmp_path):
    path = written(tmp_path, "output_dir: !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="is not a YAML file"):
        parse(CausalLanguageModellingArguments, [path])


def test_arguments_of_the_other_recipe_are_unknown():
    with pytest.raises(ValueError, match="flag --mlm_probability is not known"):
        causal("--mlm_probability", "0.2")
    assert parse(MaskedLanguageModellingArguments, [*MINIMUM, "--block_size", "64"]).max_seq_length == 64


def test_tokens_are_not_shown():
    arguments = causal("--token", "hf_first", "--push_to_hub", "--hub_token", "hf_second")
    assert arguments.token == "hf_first" and arguments.hub_token == "hf_second"
    assert "hf_" not in repr(arguments) and "hf_" not in str(arguments.public())


@pytest.mark.parametrize("cls", [CausalLanguageModellingArguments, MaskedLanguageModellingArguments])
def test_help_explains_every_flag(cls):
    text = help_text(cls, "run.py")
    for field in cls.__dataclass_fields__.values():
        assert f"  --{field.name}" in text
        assert field.metadata["help"][:40] in text


def test_a_program_ends_with_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_or_exit(CausalLanguageModellingArguments, ["--sed", "1"])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "nearest known one is 'seed'" in printed
    with pytest.raises(SystemExit) as caught:
        parse_or_exit(CausalLanguageModellingArguments, ["--help"])
    assert caught.value.code == 0


SCRIPT = """
import sys
from tfheads.recipes.arguments import CausalLanguageModellingArguments
from tfheads.recipes.command_line import parse

arguments = parse(CausalLanguageModellingArguments)
assert (arguments.token, arguments.hub_token) == ("hf_first", "hf_second")
import wandb

wandb.init(project="p", mode="offline", config={"text": repr(arguments)}).finish()
"""


def test_tokens_of_the_command_line_are_in_no_file_of_a_run(tmp_path):
    """Weights & Biases records the command."""
    flags = ["--model_name_or_path", "x", "--train_file", "y.txt", "--output_dir", "z", "--do_train"]
    flags += ["--token=hf_first", "--push_to_hub", "--push-to-hub-token", "hf_second"]
    path = os.pathsep.join([os.environ["PYTHONPATH"], os.getcwd()])
    environment = {**os.environ, "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "PYTHONPATH": path}
    command = [sys.executable, "-c", SCRIPT, *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"train_file" in path.read_bytes() for path in files)
    for secret in (b"hf_first", b"hf_second"):
        assert not any(secret in path.read_bytes() for path in files)

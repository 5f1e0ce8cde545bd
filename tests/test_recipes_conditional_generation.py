"""run_conditional_generation: sources and targets, from files to checkpoint, written targets and bad input."""

from pathlib import Path

import numpy as np
import pytest

import tfheads
from tests.recipe_runs import write_lines
from tfheads.data.tokenizer_training import train_byte_level_bpe
from tfheads.recipes.command_line import parse
from tfheads.recipes.conditional_generation import (
    ConditionalGenerationArguments,
    conditional_generation,
    run_conditional_generation,
)

CONFIG = Path(__file__).parent.parent / "configs" / "conditional_xsum.yaml"
ANSWERS = {"cat": "it mews", "dog": "it barks", "bird": "it sings"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with animals and what they do: pairs.jsonl, bpe."""
    directory = tmp_path_factory.mktemp("pairs")
    random, rows = np.random.RandomState(0), []
    for row in range(48):
        animal = list(ANSWERS)[row % 3]
        rows.append({"question": f"the {animal}" + " there" * random.randint(1, 9), "answer": ANSWERS[animal]})
    write_lines(directory / "pairs.jsonl", rows)
    train_byte_level_bpe([f"{row['question']} {row['answer']}" for row in rows], 300).save_pretrained(directory / "bpe")
    return directory


def arguments(data, output, **changes) -> ConditionalGenerationArguments:
    values = {
        "model_name_or_path": "none",
        "dataset_name": "none",
        "model_type": "gpt2",
        "config_overrides": "n_layer=1,n_embd=32,n_head=2,n_positions=64,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0",
        "tokenizer_name": data / "bpe",
        "train_file": data / "pairs.jsonl",
        "validation_file": data / "pairs.jsonl",
        "text_column": "question",
        "summary_column": "answer",
        "output_dir": output,
        "max_source_length": "none",
        "max_target_length": 12,
        "max_eval_samples": 10,
        "num_beams": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "warmup_ratio": 0,
        "max_steps": 240,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "bf16": "false",
        "jit_compile": "false",
        **changes,
    }
    return parse(
        ConditionalGenerationArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())]
    )


def test_pairs_from_files_to_written_targets(data, tmp_path):
    output = tmp_path / "model"
    predicting = {"do_predict": "true", "test_file": data / "pairs.jsonl", "max_predict_samples": 6}
    run = conditional_generation(arguments(data, output, **predicting))
    batch = next(iter(run.batches(0, 0)))
    assert batch["labels"].shape == (8, 8) and batch["input_ids"].shape[1] <= 51
    results = run.run()
    assert results["eval_loss"] < 0.3 and results["eval_exact_match"] > 0.8 and results["eval_gen_len"] < 8
    written = (output / "generated_predictions.txt").read_text().splitlines()
    assert len(written) == 6 and set(written) <= set(ANSWERS.values())
    model = tfheads.AutoModelForConditionalGeneration.from_pretrained(output)
    assert type(model) is tfheads.GPT2ForConditionalGeneration
    model.compile()
    assert model.evaluate(run.evaluation.batches, verbose=0, return_dict=True)["loss"] == pytest.approx(
        results["eval_loss"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("rows", "changes", "error", "message"),
    [
        (None, {"text_column": "text"}, KeyError, "there is no column 'text', the columns are question, answer"),
        (None, {"max_source_length": 52}, ValueError, "max_source_length must be between 1 and 51, .* got 52"),
        (None, {"max_target_length": 64}, ValueError, "max_source_length must be between 1 and -1"),
        (None, {"max_seq_length": 9}, ValueError, "max_seq_length must not be given: give max_source_length"),
        (
            [{"question": "", "answer": "a"}],
            {},
            ValueError,
            "must have a text in column 'question'",
        ),
        ([{"question": "q", "answer": None}, {"question": "q", "answer": "a"}], {}, ValueError, "in column 'answer'"),
        ([{"question": "q"}], {"summary_column": "none"}, ValueError, "there must be columns of text for source and"),
    ],
)
def test_bad_input_is_one_sentence(data, tmp_path, rows, changes, error, message):
    if rows is not None:
        write_lines(tmp_path / "rows.jsonl", rows)
        changes = {**changes, "train_file": tmp_path / "rows.jsonl", "validation_file": tmp_path / "rows.jsonl"}
    with pytest.raises(error, match=message) as caught:
        run_conditional_generation(arguments(data, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_encoder_decoders_read_the_source_by_themselves(data, tmp_path):
    sizes = "d_model=16,encoder_layers=1,decoder_layers=1,encoder_attention_heads=2,decoder_attention_heads=2"
    sizes += ",encoder_ffn_dim=24,decoder_ffn_dim=24,max_position_embeddings=64"
    changes = {"model_type": "bart", "config_overrides": sizes, "max_steps": 2, "max_source_length": 64}
    results = run_conditional_generation(arguments(data, tmp_path / "model", **changes))
    assert {"eval_loss", "perplexity", "eval_exact_match"} <= set(results)
    assert type(tfheads.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")).__name__.startswith("Bart")

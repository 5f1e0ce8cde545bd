"""run_summarization: texts and summaries, from files to checkpoint, ROUGE, tracking and uploads, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfheads
from tests.fake_hub import fake_hub
from tests.recipe_runs import WRITING_RUN, write_lines
from tfheads.callbacks import KerasMetricCallback
from tfheads.data.tokenizer_training import train_byte_level_bpe
from tfheads.metrics.generated_text import GeneratedTextMeasure
from tfheads.metrics.rouge import rouge_measures
from tfheads.recipes.command_line import parse
from tfheads.recipes.summarization import SummarizationArguments, run_summarization, summarization

CONFIG = Path(__file__).parent.parent / "configs" / "summarization_xsum.yaml"
ANIMALS = {"cat": "A cat mews. It is small.", "dog": "A dog barks. It is red.", "bird": "A bird sings. It is loud."}
TINY_T5 = "d_model=32,d_ff=64,d_kv=16,num_layers=1,num_heads=2,dropout_rate=0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with news of animals: news.jsonl, some of it without a text, and bpe."""
    directory = tmp_path_factory.mktemp("news")
    random, rows = np.random.RandomState(0), []
    for row in range(48):
        animal = list(ANIMALS)[row % 3]
        article = "the " * random.randint(1, 9) + animal + " there" * random.randint(1, 9)
        rows.append({"id": str(row), "article": article, "highlights": ANIMALS[animal]})
    write_lines(directory / "news.jsonl", rows)
    lacking = [{"id": "x", "article": "", "highlights": "a"}, {"id": "y", "article": "a", "highlights": None}]
    write_lines(directory / "lacking.jsonl", lacking + rows)
    texts = [f" {row[name]}" for row in rows for name in ("article", "highlights")]
    train_byte_level_bpe(texts, 320).save_pretrained(directory / "bpe")
    return directory


def arguments(data, output, **changes) -> SummarizationArguments:
    values = {
        **WRITING_RUN,
        "model_type": "t5",
        "config_overrides": TINY_T5,
        "tokenizer_name": data / "bpe",
        "train_file": data / "lacking.jsonl",
        "validation_file": data / "news.jsonl",
        "output_dir": output,
        "max_eval_samples": 9,
        "per_device_train_batch_size": 12,
        "per_device_eval_batch_size": 4,
        "max_steps": 80,
        **changes,
    }
    return parse(SummarizationArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


@pytest.mark.slow
def test_texts_from_files_to_summaries(data, tmp_path, caplog):
    output = tmp_path / "model"
    changes = {"eval_strategy": "steps", "eval_steps": 40, "eval_on_start": "true", "num_beams": 2}
    changes |= {"load_best_model_at_end": "true", "metric_for_best_model": "eval_rougeLsum"}
    changes |= {"do_predict": "true", "test_file": data / "news.jsonl", "max_predict_samples": 7}
    run = summarization(arguments(data, output, **changes))
    assert "2 of 50 rows of train lack a text or a summary and are left out" in caplog.text and run.train_rows == 48
    results = run.run()
    log = [json.loads(line) for line in (output / "log_history.jsonl").read_text().splitlines()]
    scores = [entry["eval_rougeLsum"] for entry in log if "eval_rougeLsum" in entry]
    assert len(scores) == 3 and scores[0] < 10 and max(scores) > 90
    assert results["eval_rougeLsum"] == max(scores) >= results["eval_rougeL"] >= results["eval_rouge2"] > 80
    written = (output / "generated_predictions.txt").read_text().splitlines()
    right = [json.loads(line)["highlights"] for line in (data / "news.jsonl").read_text().splitlines()[:7]]
    found = rouge_measures(written, right)
    assert {f"predict_{name}": pytest.approx(value) for name, value in found.items()}.items() <= results.items()
    predicted = json.loads((output / "predict_results.json").read_text())
    assert set(predicted) == {*(f"predict_{name}" for name in found), "predict_gen_len"}

    # The same measure as a callback of fit, on token ids.
    logs = {}
    batches = run.evaluation.source.batches(4, shuffle=False, drop_remainder=False)
    options = {"num_beams": 2, "max_new_tokens": 24}
    measure = GeneratedTextMeasure(rouge_measures, run.tokenizer)
    callback = KerasMetricCallback(measure, batches, predict_with_generate=True, generate_kwargs=options)
    callback.set_model(tfheads.T5ForConditionalGeneration.from_pretrained(output))
    callback.on_epoch_end(0, logs)
    assert logs["val_rougeLsum"] == pytest.approx(results["eval_rougeLsum"])


@pytest.mark.slow
def test_a_tracked_run_that_is_pushed(data, tmp_path, monkeypatch, offline_tracking):
    """Weights & Biases offline, and a Hub on a local port; ROUGE in the card, a written sample for the tracker."""
    tracked = []
    monkeypatch.setattr(
        "tfheads.callbacks.wandb.WandbCallback.write_samples", lambda self, rows, step: tracked.extend(rows)
    )
    with fake_hub() as hub:
        changes = {"report_to": "wandb", "sample_prompts": "the cat there", "max_steps": 4, "save_strategy": "epoch"}
        changes |= {"push_to_hub": "true", "hub_model_id": "tester/summaries", "hub_token": hub.token}
        results = run_summarization(arguments(data, tmp_path / "out", eval_strategy="epoch", **changes))
        files = hub.files("tester/summaries")
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert f"{results['eval_rouge1']:.6g}" in files["README.md"].decode()
    assert list((offline_tracking / "wandb").glob("offline-run-*/run-*.wandb"))
    assert tracked and tracked[0][0] == "the cat there" and isinstance(tracked[0][1], str)


@pytest.mark.slow
def test_decoders_summarise_too(data, tmp_path):
    tiny = "n_layer=1,n_embd=16,n_head=2,n_positions=64,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0"
    changes = {"model_type": "gpt2", "config_overrides": tiny, "max_steps": 2, "source_prefix": "in short: "}
    results = run_summarization(arguments(data, tmp_path / "out", **changes))
    assert {"eval_loss", "perplexity", "eval_rouge1", "eval_rouge2", "eval_rougeLsum", "eval_gen_len"} <= set(results)
    model = tfheads.AutoModelForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.config.task_specific_params == {"summarization": {"prefix": "in short: "}}


@pytest.mark.parametrize(
    ("rows", "changes", "error", "message"),
    [
        (None, {"text_column": "story"}, KeyError, "there is no column 'story', the columns are id, article, highl"),
        ([{"article": "", "highlights": "a"}], {}, ValueError, "no row with a text in both columns 'article' and 'h"),
        ([{"article": "a", "highlights": "猫"}], {}, ValueError, "targets must have words of Latin letters or digits"),
        ([{"article": "a"}], {}, ValueError, "there must be columns of text for source and target"),
        (None, {"do_predict": "true"}, ValueError, "do_predict needs data: give test_file"),
    ],
)
def test_bad_input_is_one_sentence_before_any_training(data, tmp_path, rows, changes, error, message):
    if rows is not None:
        write_lines(tmp_path / "rows.jsonl", rows)
        changes = {**changes, "train_file": tmp_path / "rows.jsonl", "validation_file": tmp_path / "rows.jsonl"}
    with pytest.raises(error, match=message) as caught:
        summarization(arguments(data, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

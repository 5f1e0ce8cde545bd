"""run_translation: pairs of languages, from files to checkpoint, BLEU, few lengths, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from transformers import AutoTokenizer

import tfheads
from tests.recipe_runs import WRITING_RUN, write_lines
from tfheads.data.tokenizer_training import train_byte_level_bpe
from tfheads.recipes.command_line import parse
from tfheads.recipes.run_log import RunLog
from tfheads.recipes.translation import TranslationArguments, run_translation, translation

CONFIG = Path(__file__).parent.parent / "configs" / "translation_wmt16.yaml"
WORDS = {"the": "der", "small": "kleine", "red": "rote", "dog": "Hund", "sings": "singt", "there": "dort"}
TINY_BART = "d_model=32,encoder_layers=1,decoder_layers=1,encoder_attention_heads=2,decoder_attention_heads=2"
TINY_BART += ",encoder_ffn_dim=32,decoder_ffn_dim=32,max_position_embeddings=64,dropout=0,init_std=0.1"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with sentences in two languages: pairs.jsonl in the form of WMT, columns.csv, and bpe."""
    directory = tmp_path_factory.mktemp("pairs")
    random, rows = np.random.RandomState(0), []
    for _ in range(96):
        words = random.choice(list(WORDS), random.randint(1, 5))
        rows.append({"en": " ".join(words), "de": " ".join(WORDS[word] for word in words)})
    write_lines(directory / "pairs.jsonl", [{"translation": row} for row in rows])
    lines = ["de,note,en", *(f"{row['de']},x,{row['en']}" for row in rows)]
    (directory / "columns.csv").write_text("\n".join(lines) + "\n")
    train_byte_level_bpe([f" {text}" for row in rows for text in row.values()], 320).save_pretrained(directory / "bpe")
    return directory


def arguments(data, output, **changes) -> TranslationArguments:
    values = {
        **WRITING_RUN,
        "dataset_config_name": "none",
        "model_type": "bart",
        "config_overrides": TINY_BART,
        "tokenizer_name": data / "bpe",
        "train_file": data / "pairs.jsonl",
        "validation_file": data / "pairs.jsonl",
        "source_lang": "en",
        "target_lang": "de",
        "output_dir": output,
        "max_eval_samples": 16,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 6,
        "num_beams": 1,
        "warmup_ratio": 0.1,
        "max_steps": 160,
        **changes,
    }
    return parse(TranslationArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


@pytest.mark.slow
def test_sentences_from_files_to_translations(data, tmp_path):
    output = tmp_path / "model"
    changes = {"eval_strategy": "steps", "eval_steps": 40, "eval_on_start": "true", "logging_steps": 40}
    changes |= {"load_best_model_at_end": "true", "metric_for_best_model": "bleu", "source_prefix": "auf deutsch: "}
    changes |= {"do_predict": "true", "test_file": data / "columns.csv", "max_predict_samples": 9}
    results = run_translation(arguments(data, output, **changes))
    log = [json.loads(line) for line in (output / "log_history.jsonl").read_text().splitlines()]
    scores = {entry["step"]: entry["eval_bleu"] for entry in log if "eval_bleu" in entry}
    assert list(scores) == [0, 40, 80, 120, 160] and scores[0] < 10 and max(scores.values()) > 80
    assert results["eval_bleu"] == pytest.approx(max(scores.values())) and 1 <= results["eval_gen_len"] < 8

    written = (output / "generated_predictions.txt").read_text().splitlines()
    right = [line.split(",")[0] for line in (data / "columns.csv").read_text().splitlines()[1:10]]
    assert results["predict_bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [right]).score)
    assert json.loads((output / "all_results.json").read_text()) == results

    # The model from its directory: the same measures, and a pipeline writes the same, with the prefix of its config.
    changes = {"model_type": "none", "config_overrides": "", "model_name_or_path": output, "tokenizer_name": "none"}
    again = run_translation(arguments(data, tmp_path / "again", **changes, do_train="false"))
    assert again["eval_bleu"] == pytest.approx(results["eval_bleu"])
    english = [line.split(",")[2] for line in (data / "columns.csv").read_text().splitlines()[1:10]]
    translate = tfheads.pipeline("translation_en_to_de", model=output)
    assert type(translate.model) is tfheads.BartForConditionalGeneration
    answers = translate(english, max_new_tokens=24, num_beams=1, jit_compile=False)
    assert [answer["translation_text"].strip() for answer in answers] == written
    config, end = translate.model.config, translate.tokenizer.eos_token_id
    assert config.task_specific_params["translation_en_to_de"]["prefix"] == "auf deutsch: "
    assert config.decoder_start_token_id == end == translate.model.generation_config.forced_eos_token_id


@pytest.mark.slow
def test_few_lengths_and_few_traces(data, tmp_path, monkeypatch):
    random = np.random.RandomState(1)
    rows = [{"en": "dog " * random.randint(1, 60), "de": "Hund " * random.randint(1, 20)} for _ in range(120)]
    write_lines(tmp_path / "long.jsonl", rows)
    changes = {"train_file": tmp_path / "long.jsonl", "validation_file": tmp_path / "long.jsonl"}
    changes |= {
        "max_eval_samples": 40,
        "max_source_length": 64,
        "bucket_lengths": "16",
        "max_steps": 8,
        "jit_compile": "true",
    }
    changes |= {"do_eval": "true", "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    run = translation(arguments(data, tmp_path / "out", **changes))
    traces, generations = [], []
    model, extend = type(run.model), type(run.model.backbone).extend
    forward_backward = model._forward_backward

    def counted(self, inputs, *given):
        traces.append(inputs["input_ids"].shape)
        return forward_backward(self, inputs, *given)

    def extended(self, inputs, *given):
        generations.append(inputs["input_ids"].shape)
        return extend(self, inputs, *given)

    monkeypatch.setattr(model, "_forward_backward", counted)
    monkeypatch.setattr(type(run.model.backbone), "extend", extended)
    shapes = set()
    for number, batch in enumerate(run.batches(0, 0)):
        shapes.add((batch["input_ids"].shape[1], batch["labels"].shape[1]))
        if number == 60:
            break
    assert shapes == {(16, 24), (64, 24)} or shapes == {(16, 16), (64, 24)}, shapes
    assert np.isfinite(run.run()["eval_loss"])
    assert len(traces) <= 2 and len(generations) <= 4, (traces, generations)  # a prefill and a step for each width


class Interrupted(Exception):
    """Stands for a process that dies."""


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    class Dying(RunLog):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if int(self.model.optimizer.iterations) == 5:
                raise Interrupted

    changes = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "logging_steps": 1, "eval_strategy": "steps"}
    changes |= {"eval_steps": 4, "config_overrides": TINY_BART.replace("dropout=0", "dropout=0.1"), "num_beams": 2}
    whole = run_translation(arguments(data, tmp_path / "whole", **changes))
    with monkeypatch.context() as patch:
        patch.setattr("tfheads.recipes.training.RunLog", Dying)
        with pytest.raises(Interrupted):
            run_translation(arguments(data, tmp_path / "parts", **changes))
    parts = run_translation(arguments(data, tmp_path / "parts", **changes))
    logs = [(tmp_path / name / "log_history.jsonl").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1] and '"eval_bleu"' in logs[0]
    assert parts["eval_bleu"] == whole["eval_bleu"] and parts["eval_loss"] == whole["eval_loss"]


@pytest.mark.slow
def test_forced_beginnings_are_kept_with_the_model(data, tmp_path):
    changes = {"forced_bos_token": "ĠHund", "max_steps": 1, "do_predict": "true", "test_file": data / "columns.csv"}
    run_translation(arguments(data, tmp_path / "out", **changes, max_predict_samples=4, do_eval="false"))
    written = (tmp_path / "out" / "generated_predictions.txt").read_text().splitlines()
    assert len(written) == 4 and all(line.startswith("Hund") for line in written)
    again = tfheads.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert again.generation_config.forced_bos_token_id is not None
    again.generation_config.min_length = 30  # more than there is room for: said before the training
    again.save_pretrained(tmp_path / "long", tokenizer=AutoTokenizer.from_pretrained(tmp_path / "out"))
    checkpoint = {"model_name_or_path": tmp_path / "long", "model_type": "none", "config_overrides": ""}
    with pytest.raises(ValueError, match="min_new_tokens must be at most max_new_tokens 24, got 29"):
        translation(arguments(data, tmp_path / "unwritten", **checkpoint))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target_lang": "none"}, ValueError, "target_lang must be given"),
        ({"source_lang": "fr"}, KeyError, "no text for the language 'fr', the column translation has en, de"),
        ({"forced_bos_token": "<fr>"}, ValueError, "forced_bos_token must be a token of the tokenizer, got '<fr>'"),
        ({"max_target_length": 65}, ValueError, "max_target_length must be at most 64, the positions of the decoder"),
        ({"max_source_length": 65}, ValueError, "max_source_length must be between 1 and 64"),
        ({"bleu_tokenizer": "moses"}, ValueError, "bleu_tokenizer must be one of 13a"),
    ],
)
def test_bad_input_is_one_sentence_before_any_training(data, tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        translation(arguments(data, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

"""run_nsp_mlm: pairs of sentences from documents, both losses, evaluation, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfheads
from tfheads.data.sentence_pairs import documents, sentence_pairs
from tfheads.data.tokenizer_training import train_wordpiece
from tfheads.recipes.command_line import parse
from tfheads.recipes.pre_training import PreTrainingArguments, pre_training, run_pre_training

CONFIG = Path(__file__).parent.parent / "configs" / "nsp_bert.yaml"
TINY = "num_hidden_layers=1,hidden_size=16,num_attention_heads=2,intermediate_size=32,max_position_embeddings=64"
TINY += ",hidden_dropout_prob=0,attention_probs_dropout_prob=0"  # half of a graph for training is dropout
TOPICS = [["cat", "dog", "bird", "cow"], ["car", "ship", "train", "plane"], ["red", "blue", "green", "black"]]


def lines_of(topic: int, seed: int) -> list[str]:
    random = np.random.RandomState(seed)
    return ["the " + " and ".join(random.choice(TOPICS[topic], random.randint(2, 5))) + "." for _ in range(12)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with documents on topics: lines.txt (empty lines between), rows.jsonl (whole ones), wordpiece."""
    directory = tmp_path_factory.mktemp("documents")
    found = [lines_of(number % 3, number) for number in range(18)]
    (directory / "lines.txt").write_text("\n\n".join("\n".join(lines) for lines in found) + "\n")
    rows = [{"text": " ".join(lines)} for lines in found]
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_wordpiece([line for lines in found for line in lines], 120).save_pretrained(directory / "wordpiece")
    return directory


def arguments(data, output, **changes) -> PreTrainingArguments:
    values = {
        "config_name": "none",
        "dataset_name": "none",
        "dataset_config_name": "none",
        "model_type": "bert",
        "config_overrides": TINY,
        "tokenizer_name": data / "wordpiece",
        "train_file": data / "lines.txt",
        "validation_file": data / "rows.jsonl",
        "output_dir": output,
        "max_seq_length": 40,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "max_steps": 25,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "bf16": "false",
        "jit_compile": "false",
        **changes,
    }
    return parse(PreTrainingArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


def test_documents_are_told_apart_by_empty_lines_or_are_rows():
    by_line = documents(["One. Two!\n", "Three?\n", "\n", "\n", "Four.\n", None, "Five 1.5\n"])
    assert by_line == [["One.", "Two!", "Three?"], ["Four."], ["Five 1.5"]]
    assert documents(["One. Two!", "Three?\nFour"]) == [["One.", "Two!"], ["Three?", "Four"]]


def test_half_of_the_second_parts_follow_and_the_others_are_of_another_document():
    texts = [" ".join(f"w{document} s{place}." for place in range(30)) for document in range(40)]
    tokenizer = train_wordpiece(texts, 400)
    rows = sentence_pairs(texts, tokenizer, 40, short_probability=0.2, seed=3)
    follows = 0
    for row in rows:
        ids, types = np.array(row["input_ids"]), np.array(row["token_type_ids"])
        assert len(ids) <= 40 and ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
        assert types.tolist() == sorted(types.tolist()) and (ids == tokenizer.sep_token_id).sum() == 2
        first, second = (tokenizer.decode(ids[types == part], skip_special_tokens=True).split() for part in (0, 1))
        topics = [{word for word in part if word.startswith("w")} for part in (first, second)]
        assert first and second and all(len(topic) <= 1 for topic in topics)
        if all(topics):
            assert (topics[0] == topics[1]) == (row["next_sentence_label"] == 0)
        follows += row["next_sentence_label"] == 0
    assert 0.35 < follows / len(rows) < 0.6 and len(rows) > 60
    assert sentence_pairs(texts, tokenizer, 40, short_probability=0.2, seed=3).to_dict() == rows.to_dict()


@pytest.mark.slow
def test_pre_training_from_text_to_checkpoint(data, tmp_path):
    output = tmp_path / "model"
    run = pre_training(arguments(data, output, jit_compile="true"))
    batch, again = next(iter(run.batches(0, 0))), next(iter(run.batches(0, 0)))
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "next_sentence_label"}
    assert batch["input_ids"].shape == (8, 40) and (batch["labels"] != -100).numpy().any()
    np.testing.assert_array_equal(batch["labels"], again["labels"])
    results = run.run()
    assert results["eval_loss"] == pytest.approx(results["eval_mlm_loss"] + results["eval_nsp_loss"])
    assert 0 <= results["eval_nsp_accuracy"] <= 1
    model = tfheads.AutoModelForPreTraining.from_pretrained(output)
    model.compile()
    evaluated = model.evaluate(run.evaluation.batches, verbose=0)
    assert evaluated == pytest.approx(results["eval_loss"], rel=1e-4)
    fresh = tfheads.AutoModelForPreTraining.from_config(model.config, seed=1)
    assert run.evaluation(fresh)["mlm_loss"] > results["eval_mlm_loss"] + 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streaming": "true"}, "streaming must be false: sentences are drawn from all documents"),
        ({"model_type": "albert"}, "model_type must be one that is trained on masks and next sentences"),
        ({"max_seq_length": 65}, "block_size=65 is beyond the model's position limit of 64"),
        ({"train_file": "one.txt"}, "train: texts must hold at least 2 documents .*, got 1"),
    ],
)
def test_bad_input_is_one_sentence(data, tmp_path, changes, message):
    if "train_file" in changes:
        (tmp_path / "one.txt").write_text("One.\n\n\n")
        changes = {"train_file": tmp_path / "one.txt"}
    if "model_type" in changes:
        changes["config_overrides"] = TINY + ",embedding_size=16"
    with pytest.raises(ValueError, match=message) as caught:
        run_pre_training(arguments(data, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)

"""run_qa: questions from files of SQuAD, to checkpoint and answers; bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfheads
from tfheads.data.squad_files import read_squad
from tfheads.data.tokenizer_training import train_wordpiece
from tfheads.recipes.arguments import QuestionAnsweringArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.question_answering import question_answering, run_question_answering

CONFIG = Path(__file__).parent.parent / "configs" / "qa_squad.yaml"
TINY = "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=64,max_position_embeddings=64"
TINY += ",hidden_dropout_prob=0,attention_probs_dropout_prob=0"  # half of a graph for training is dropout
WORDS = ["the", "cat", "dog", "bird", "sees", "hears", "near", "a", "lake", "and", "who", "is", "here"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with questions about who is in a text: squad.json, negative.json, wordpiece."""
    directory = tmp_path_factory.mktemp("questions")
    random = np.random.RandomState(0)

    def question(number, with_answer=True):
        words = list(random.choice(WORDS[:10], random.randint(6, 40)))
        answers = []
        if with_answer:
            place = random.randint(len(words))
            words[place] = name = random.choice(["Anna", "Otto"])
            start = len(" ".join([*words[:place], ""]))
            answers = [{"text": str(name), "answer_start": start}]
        qas = [{"id": f"q{number}", "question": "who is here", "answers": answers}]
        return {"context": " ".join(words), "qas": qas}

    squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": [question(number) for number in range(60)]}]}
    (directory / "squad.json").write_text(json.dumps(squad))
    mixed = [question(number, number % 2 == 0) for number in range(40)]
    (directory / "negative.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": mixed}]}))
    train_wordpiece([" ".join([*WORDS, "anna", "otto"])] * 3, 120).save_pretrained(directory / "wordpiece")
    return directory


def arguments(data, output, **changes) -> QuestionAnsweringArguments:
    values = {
        "model_name_or_path": "none",
        "dataset_name": "none",
        "model_type": "bert",
        "config_overrides": TINY,
        "tokenizer_name": data / "wordpiece",
        "train_file": data / "squad.json",
        "validation_file": data / "squad.json",
        "output_dir": output,
        "max_seq_length": 32,
        "doc_stride": 8,
        "pad_to_max_length": "false",
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 5e-3,
        "num_train_epochs": 6,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "bf16": "false",
        "jit_compile": "false",
        **changes,
    }
    return parse(QuestionAnsweringArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


def test_answers_from_squad_files(data, tmp_path):
    output = tmp_path / "model"
    run = question_answering(arguments(data, output))
    assert run.train_rows > 60  # contexts that are longer than a row are cut into several
    results = run.run()
    assert results["eval_exact_match"] > 60 and results["eval_f1"] >= results["eval_exact_match"]
    answers = json.loads((output / "eval_predictions.json").read_text())
    best = json.loads((output / "eval_nbest_predictions.json").read_text())
    contexts = {row["id"]: row["context"] for row in read_squad(data / "squad.json")}
    assert set(answers) == set(contexts) and all(answers[name] in contexts[name] for name in answers)
    assert best["q0"][0]["text"] == answers["q0"] and 0 < best["q0"][0]["probability"] <= 1
    assert tfheads.AutoModelForQuestionAnswering.from_pretrained(output).config.num_labels == 2


@pytest.mark.slow
def test_questions_without_an_answer(data, tmp_path):
    output = tmp_path / "model"
    files = {"train_file": data / "negative.json", "validation_file": data / "negative.json"}
    files |= {"do_predict": "true", "test_file": data / "negative.json", "max_predict_samples": 3}
    changes = {"version_2_with_negative": "true", "max_steps": 3, "null_score_diff_threshold": -1000}
    results = run_question_answering(arguments(data, output, **files, **changes))
    # Each answer is "none": right for one half.
    assert results["eval_NoAns_exact"] == 100 and results["eval_HasAns_exact"] == 0 and results["eval_exact"] == 50
    assert len(json.loads((output / "eval_null_odds.json").read_text())) == 40
    assert json.loads((output / "predict_predictions.json").read_text()) == {"q0": "", "q1": "", "q2": ""}


def test_bad_input_is_one_sentence(data, tmp_path):
    with pytest.raises(ValueError, match="doc_stride"):
        question_answering(arguments(data, tmp_path / "out", doc_stride=30))
    with pytest.raises(ValueError, match="block_size=100 is beyond the model's position limit of 64"):
        question_answering(arguments(data, tmp_path / "out", max_seq_length=100))
    (tmp_path / "other.json").write_text(json.dumps({"data": [{"title": "x"}]}))
    with pytest.raises(ValueError, match="is not in SQuAD's format: KeyError 'id'"):
        question_answering(arguments(data, tmp_path / "out", train_file=tmp_path / "other.json"))
    rows = json.loads((data / "squad.json").read_text())
    rows["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    (tmp_path / "moved.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="answers must stand in the context at answer_start"):
        question_answering(arguments(data, tmp_path / "out", train_file=tmp_path / "moved.json"))
    with pytest.raises(ValueError, match="question 'q1' has no answer: set version_2_with_negative"):
        run_question_answering(arguments(data, tmp_path / "out", validation_file=data / "negative.json", max_steps=1))

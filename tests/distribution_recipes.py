"""Recipes as cases of `tests.distribution_cases`: runs with all that a recipe does beside training."""

import json
import os
from pathlib import Path

import numpy as np

from tests.fake_hub import fake_hub
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece
from tfheads.distribute import barrier
from tfheads.recipes.arguments import (
    CausalLanguageModellingArguments,
    QuestionAnsweringArguments,
    TokenClassificationArguments,
)
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.language_modelling import causal_language_modelling
from tfheads.recipes.question_answering import question_answering
from tfheads.recipes.token_classification import token_classification

WORDS = ["the", "cat", "dog", "bird", "sees", "hears", "near", "a", "lake", "and"]
MEASURES = ("loss", "perplexity", "accuracy", "precision", "recall", "f1", "exact_match")


def own_directory(name: str) -> Path:
    """A directory of this worker in that of the run."""
    directory = Path(f"{name}-{os.getpid()}").resolve()
    directory.mkdir()
    return directory


def counting_text(directory: Path) -> Path:
    """Writes a text and its tokenizer; returns the directory."""
    lines = [" ".join(str(number % 7) for number in range(row, row + 12)) + "\n" for row in range(120)]
    (directory / "train.txt").write_text("".join(lines))
    train_byte_level_bpe(lines, 300).save_pretrained(directory / "bpe")
    return directory


def counting(directory: Path, rows: int, **changes) -> CausalLanguageModellingArguments:
    """A tiny GPT-2 that learns a `counting_text`, with evaluations on the way."""
    return CausalLanguageModellingArguments(
        model_type="gpt2",
        config_overrides={"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 32}
        | dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0),
        tokenizer_name=str(directory / "bpe"),
        train_file=[str(directory / "train.txt")],
        block_size=16,
        validation_split_percentage=20,
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=5,
        learning_rate=1e-2,
        max_steps=6,
        logging_steps=2,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=3,
        load_best_model_at_end=True,
        jit_compile=False,
        do_train=True,
        do_eval=True,
        **changes,
    )


def recipe(strategy) -> dict:
    """A run with evaluations, the best model, trackers and an upload, in one directory for all workers."""
    os.environ.update(WANDB_MODE="offline", WANDB_DIR=os.getcwd(), WANDB_SILENT="true")
    arguments = counting(
        counting_text(own_directory("text")),
        12 // strategy.num_replicas_in_sync,
        output_dir=str(Path("recipe").resolve()),
        report_to=["tensorboard", "wandb"],
        push_to_hub=True,
        hub_strategy="end",
    )
    with strategy.scope(), fake_hub() as hub:
        run = causal_language_modelling(arguments)
        results = run.run()
        Path(f"uploads-{os.getpid()}").write_text(str(sum("/commit/" in path for _, path in hub.requests)))
        barrier(strategy)
    found = {f"weight_{place}": value for place, value in enumerate(run.model.get_weights())}
    found |= {
        "uploads": sum(int(path.read_text()) for path in Path().glob("uploads-*")),
        "tracked_by_wandb": len(list(Path("wandb").glob("offline-run-*"))),
        "tracked_by_tensorboard": len(list(Path("recipe", "runs").glob("events*"))),
    }
    return {**found, "loss": results["eval_loss"], "train_loss": results["train_loss"]}


def measured(strategy) -> dict:
    """What question answering and names are measured by: exact match, F1, precision, recall, accuracy."""
    directory, rows = own_directory("words"), 12 // strategy.num_replicas_in_sync
    train_wordpiece([" ".join([*WORDS, "who", "is", "here", "anna", "otto"])] * 3, 120).save_pretrained(directory)
    common = {
        "model_type": "bert",
        "config_overrides": {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
        | {"intermediate_size": 32, "max_position_embeddings": 64}
        | dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0),
        "tokenizer_name": str(directory),
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": 5,
        "adam_epsilon": 1e-4,  # gradients that are 0 but for rounding stay so
        "save_strategy": "no",
        "jit_compile": False,
        "do_train": True,
        "do_eval": True,
    }
    random = np.random.RandomState(0)
    squad = directory / "squad.json"
    squad.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [question(random, n) for n in range(40)]}]}))
    files = {"train_file": [str(squad)], "validation_file": [str(squad)]}
    options = {
        "max_seq_length": 32,
        "doc_stride": 8,
        "learning_rate": 2e-3,
        "max_steps": 2,
        "output_dir": str(Path("answers").resolve()),
    }
    answers = QuestionAnsweringArguments(**common, **files, **options)
    names = directory / "names.json"
    names.write_text("".join(json.dumps(sentence(random)) + "\n" for _ in range(41)))
    files = {"train_file": [str(names)], "validation_file": [str(names)]}
    options = {"learning_rate": 1e-2, "max_steps": 6, "output_dir": str(Path("names").resolve())}
    labels = TokenClassificationArguments(**common, **files, **options)
    found = {}
    with strategy.scope():
        for name, prepare, arguments in [("qa", question_answering, answers), ("ner", token_classification, labels)]:
            results = prepare(arguments).run()
            found |= {f"{name}_{one}": results[f"eval_{one}"] for one in MEASURES if f"eval_{one}" in results}
    assert {"qa_exact_match", "qa_f1", "ner_f1", "ner_accuracy"} <= set(found), sorted(found)
    return found


def question(random, number: int) -> dict:
    """A text of up to 40 words with a name in it."""
    words = list(random.choice(WORDS, random.randint(6, 40)))
    place = random.randint(len(words))
    words[place] = name = str(random.choice(["anna", "otto"]))
    answer = {"text": name, "answer_start": len(" ".join([*words[:place], ""]))}
    return {"context": " ".join(words), "qas": [{"id": f"q{number}", "question": "who is here", "answers": [answer]}]}


def sentence(random) -> dict:
    """Words of which some are names."""
    words = [str(word) for word in random.choice([*WORDS, "anna", "otto"], random.randint(3, 9))]
    return {"tokens": words, "ner_tags": ["B-PER" if word in ("anna", "otto") else "O" for word in words]}


def by_flags(strategy: str, replicas: int, total: int, text: str, directory: str) -> None:
    """What `training/run_clm.py` does with --strategy and --num_replicas, in a process that has run nothing before."""
    devices = {"strategy": strategy, "num_replicas": replicas}
    arguments = counting(Path(text), 12 // total, output_dir=str(Path(directory, "output")), **devices)
    run_on_devices(causal_language_modelling, arguments)

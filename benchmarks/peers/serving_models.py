"""Makes what benchmarks/serving.py measures: checkpoints that all peers read, and their exports.

    python -m benchmarks.peers.serving_models FOLDER [--tiny] [--texts FILE] [--classifier_tokenizer DIRECTORY]

Weights are random; texts are invented, and tokenizers trained on them, unless they are given.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
from pathlib import Path

import numpy as np
import transformers

import tfheads
from benchmarks.peers.shapes import SHAPES
from tfheads.checkpoints.tokenizers import load_tokenizer
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece

TEXTS, WORDS = 32, 4000
PROMPT_WORDS = 24
NEW_TOKENS = 64


def invented_texts() -> list[str]:
    """Texts of 4 to 120 words, the frequent ones short."""
    random = np.random.RandomState(0)
    syllables = [c + v for c in "bdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "ai", "en", "or")]
    words = ["".join(random.choice(syllables, 1 + i * 3 // WORDS + random.randint(0, 2))) for i in range(WORDS)]
    chances = 1 / np.arange(1, WORDS + 1)
    lengths = np.geomspace(4, 120, TEXTS).astype(int)
    random.shuffle(lengths)
    return [" ".join(random.choice(words, length, p=chances / chances.sum())) + "." for length in lengths]


def main() -> None:
    """Writes texts.json, classifier/ and generator/, each with a checkpoint and `served/1`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--texts", type=Path, help="a file of lines, of which the first 32 are taken")
    parser.add_argument("--classifier_tokenizer", help="of BERT's kind; trained on the texts if it is not given")
    parser.add_argument("--generator_tokenizer", help="of GPT-2's kind, likewise")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    texts = invented_texts()
    if arguments.texts:
        lines = (line.strip() for line in arguments.texts.read_text(encoding="utf-8").splitlines())
        texts = [line for line in lines if line][:TEXTS]
    (arguments.folder / "texts.json").write_text(json.dumps(texts))
    classifier(arguments, texts)
    generator(arguments, texts)


def classifier(arguments, texts: list[str]) -> None:
    """A sequence classifier of BERT-base's shape."""
    config = transformers.BertConfig(**SHAPES["bert"].arguments(arguments.tiny, 0.0), num_labels=3)
    given = arguments.classifier_tokenizer
    tokenizer = load_tokenizer(given) if given else train_wordpiece(texts, 500, min_frequency=1)
    tokenizer.model_max_length = config.max_position_embeddings
    model = tfheads.BertForSequenceClassification.from_config(config, seed=0)
    write(model, tokenizer, arguments.folder / "classifier")


def generator(arguments, texts: list[str]) -> None:
    """A causal language model of GPT-2's shape, which never ends a text."""
    config = transformers.GPT2Config(**SHAPES["gpt2"].arguments(arguments.tiny, 0.0))
    given = arguments.generator_tokenizer
    tokenizer = load_tokenizer(given) if given else train_byte_level_bpe(texts, 500)
    model = tfheads.GPT2LMHeadModel.from_config(config, seed=0)
    write(model, tokenizer, arguments.folder / "generator", max_new_tokens=NEW_TOKENS)


def write(model, tokenizer, folder: Path, **options) -> None:
    """The checkpoint and the export."""
    model.save_pretrained(folder / "checkpoint", tokenizer=tokenizer)
    model.export_serving(folder / "served", tokenizer, overwrite=True, **options)


if __name__ == "__main__":
    main()

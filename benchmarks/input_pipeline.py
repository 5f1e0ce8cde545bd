"""How fast the input side feeds a training: rows and tokens a second, as multiples of what training consumes.

    python -m benchmarks.input_pipeline --training-tokens-per-second 215

The text is the Python reference, repeated. Every pipeline runs as in training: shuffled, batched, mapped from files.
The command fails when one of them is below ten times what training consumes.
"""

import argparse
import os
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import datasets

from tfheads.data.corpora import python_reference
from tfheads.data.language_modeling import causal_blocks, masked_blocks
from tfheads.data.masking import TokenMasking
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece
from tfheads.data.tokenizing import tokenize_texts

REQUIRED_MULTIPLE = 10


def measure(batches, seconds: float) -> tuple[float, float]:
    """(rows a second, real tokens a second) of a dataset that never ends, its start left out."""
    iterator = iter(batches)
    for _ in range(5):
        next(iterator)
    rows = tokens = 0
    start = time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        mask = next(iterator)["attention_mask"]
        rows += int(mask.shape[0])
        tokens += int(mask.numpy().sum())
    return rows / taken, tokens / taken


def tokenization_speed(texts: datasets.Dataset, tokenizer) -> tuple[float, float]:
    """(rows a second, tokens a second) of the tokenisation, which happens once and is cached."""
    start = time.perf_counter()
    tokenized = tokenize_texts(texts, tokenizer)
    taken = time.perf_counter() - start
    return len(tokenized) / taken, sum(map(len, tokenized["input_ids"])) / taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--training-tokens-per-second", type=float, default=215, help="GPT-2 124M on 2 cores: 215")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--block-size", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=10, help="how often the text is repeated")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each pipeline is measured")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        lines = [line + "\n" for text in python_reference()["text"] for line in text.split("\n\n")] * arguments.repeat
        datasets.Dataset.from_dict({"text": lines}).save_to_disk(folder)
        texts = datasets.load_from_disk(folder)
        bpe = train_byte_level_bpe(lines[: len(lines) // arguments.repeat], 8192)
        wordpiece = train_wordpiece(lines[: len(lines) // arguments.repeat], 8192)
        size, endless = arguments.block_size, {"batch_size": arguments.batch_size, "epochs": None}
        buckets = [size // 8, size // 4, size // 2]
        masking = TokenMasking.from_tokenizer(wordpiece)
        whole_words = TokenMasking.from_tokenizer(wordpiece, whole_word=True)
        results = {
            "tokenisation, byte-level BPE (once)": tokenization_speed(texts, bpe),
            "tokenisation, WordPiece (once)": tokenization_speed(texts, wordpiece),
        }
        pipelines = {
            "CLM, packed": causal_blocks(texts, bpe, size).batches(**endless),
            "CLM, documents in buckets": causal_blocks(
                texts, bpe, size, packing="documents", bucket_lengths=buckets
            ).batches(**endless),
            "MLM, packed": masked_blocks(texts, wordpiece, size).batches(masking=masking, **endless),
            "MLM, packed, whole words": masked_blocks(texts, wordpiece, size, whole_word=True).batches(
                masking=whole_words, **endless
            ),
            "MLM, line by line in buckets": masked_blocks(
                texts, wordpiece, size, line_by_line=True, bucket_lengths=buckets
            ).batches(masking=masking, **endless),
        }
        results |= {name: measure(batches, arguments.seconds) for name, batches in pipelines.items()}
        needed = arguments.training_tokens_per_second
        print(f"batches of {arguments.batch_size} x {size}; training consumes {needed:g} tokens/s")
        print(f"{'':38}{'rows/s':>12}{'tokens/s':>14}{'x training':>12}")
        for name, (rows, tokens) in results.items():
            print(f"{name:38}{rows:12,.0f}{tokens:14,.0f}{tokens / needed:12,.0f}")
        slow = [name for name in pipelines if results[name][1] < REQUIRED_MULTIPLE * needed]
        if slow:
            print(f"below {REQUIRED_MULTIPLE} times what training consumes: {', '.join(slow)}", file=sys.stderr)
        return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())

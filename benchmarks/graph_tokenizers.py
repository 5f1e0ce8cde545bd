"""Compares the tokenizer inside the graph with the tokenizer itself: equal ids and texts of ids, lines per second.

    python -m benchmarks.graph_tokenizers TOKENIZER_DIRECTORY TEXT_FILE... [--random 20000] [--cased] [--offsets]
    python -m benchmarks.graph_tokenizers llama3 TEXT_FILE... [--random 20000] [--offsets]

The second form trains a small tokenizer with LLaMA 3's regular expression; others of its kind are listed by `--help`. A
text file is read line by line; of a .json file every string is a line, and .gz is unpacked. The tokenizer (a rust one
uses all cores) and the graph take turns with the same batches, one call each.
"""

import argparse
import gzip
import json
import pathlib
import random
import time
from collections.abc import Iterator

import tensorflow as tf
import transformers

from benchmarks.trained_tokenizers import EXPRESSIONS, trained
from tfheads.preprocessing import GraphTokenizer, graph_tokenizer


def strings(value) -> Iterator[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from strings(child)


def read_lines(path: pathlib.Path) -> list[str]:
    """The lines of a text file, or the strings of a JSON file."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf8", errors="replace")
    if path.suffix == ".json":
        return list(strings(json.loads(text)))
    return text.split("\n")


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Random strings over all of Unicode, with an accent on what tokenizers treat specially."""
    generator = random.Random(seed)
    special = list(" \t\n\r'\"\u00a0\u2003\u3000\u200d\u0300\u0301\u0323\u0345\u302e\u1b44σΣςİıſßéÉ[]##<|>!.0١") + [
        "'s",
        "'ll",
    ]
    ranges = [(0x20, 0x7F), (0, 0x250), (0x300, 0x370), (0x370, 0x1000), (0x1000, 0x3000), (0x3000, 0xD800)]
    ranges += [(0xE000, 0x10000), (0x10000, 0x20000), (0x20000, 0x110000), (0x61, 0x7B), (0x61, 0x7B)]

    def character() -> str:
        if generator.random() < 0.4:
            return generator.choice(special)
        return chr(generator.randrange(*generator.choice(ranges)))

    return ["".join(character() for _ in range(generator.randrange(40))) for _ in range(count)]


def load(directory: str, arguments: argparse.Namespace) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a directory that holds tokenizer.model, vocab.txt, or vocab.json with merges.txt, or more."""
    names = {path.name for path in pathlib.Path(directory).iterdir()}
    if names & {"tokenizer.json", "tokenizer_config.json", "config.json", "tokenizer.model"}:
        return transformers.AutoTokenizer.from_pretrained(directory)
    if "vocab.txt" in names:
        return transformers.BertTokenizerFast.from_pretrained(directory, do_lower_case=not arguments.cased)
    return transformers.GPT2TokenizerFast.from_pretrained(directory)


def compare(name: str, lines: list[str], tokenizer, graph: GraphTokenizer, batch_size: int) -> None:
    """Prints how many lines have equal ids and texts of these ids, and the ratio of speeds."""
    tokenize = tf.function(graph.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    detokenize = tf.function(graph.detokenize, input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
    batches = [lines[start : start + batch_size] for start in range(0, len(lines), batch_size)]
    tokenize(tf.constant(batches[0]))
    different, seconds = [], [0.0, 0.0]
    for batch in batches:
        start = time.perf_counter()
        theirs = expected(tokenizer, batch)
        middle = time.perf_counter()
        ids = tokenize(tf.constant(batch))
        end = time.perf_counter()
        seconds = [seconds[0] + middle - start, seconds[1] + end - middle]
        texts = [text.decode() for text in detokenize(ids).numpy()]
        decoded = tokenizer.batch_decode(theirs, skip_special_tokens=True)
        pairs = zip(zip(ids.to_list(), texts, strict=True), zip(theirs, decoded, strict=True), strict=True)
        different += [line for line, (a, b) in zip(batch, pairs, strict=True) if a != b]
    report(name, "lines with equal ids and texts", lines, different, seconds)


def compare_offsets(name: str, lines: list[str], tokenizer, graph: GraphTokenizer, batch_size: int) -> None:
    """Prints how many lines have equal ids, offsets and word ids, and the ratio of speeds."""
    encode = tf.function(graph.encode, input_signature=[tf.TensorSpec([None], tf.string)])
    batches = [lines[start : start + batch_size] for start in range(0, len(lines), batch_size)]
    encode(tf.constant(batches[0]))
    different, seconds = [], [0.0, 0.0]
    for batch in batches:
        start = time.perf_counter()
        encodings = tokenizer.backend_tokenizer.encode_batch(batch)
        middle = time.perf_counter()
        ours = encode(tf.constant(batch))
        end = time.perf_counter()
        seconds = [seconds[0] + middle - start, seconds[1] + end - middle]
        columns = (ours.input_ids, ours.word_ids, ours.starts, ours.ends)
        for line, one, *row in zip(batch, encodings, *(column.to_list() for column in columns), strict=True):
            starts, ends = ([offset[side] for offset in one.offsets] for side in (0, 1))
            if row != [one.ids, [-1 if word is None else word for word in one.word_ids], starts, ends]:
                different.append(line)
    report(name, "lines with equal ids, offsets and words", lines, different, seconds)


def report(name: str, what: str, lines: list[str], different: list[str], seconds: list[float]) -> None:
    """Prints a result: the seconds are those of the tokenizer and of the graph."""
    speeds = [len(lines) / second for second in seconds]
    print(
        f"{name}: {len(lines) - len(different)} of {len(lines)} {what}; lines per second: graph {speeds[1]:.0f}, "
        f"tokenizer {speeds[0]:.0f}, ratio {speeds[1] / speeds[0]:.2f}",
        *(f"\n  differs: {line[:120]!r}" for line in different[:5]),
    )


def expected(tokenizer, batch: list[str]) -> list[list[int]]:
    """The ids that the tokenizer itself gives."""
    if tokenizer.is_fast:
        return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(batch)]
    return tokenizer(batch, verbose=False)["input_ids"]


def main() -> None:
    """Reads the command line and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(EXPRESSIONS)
    parser.add_argument("tokenizer", help=f"its directory; or {names}: trained on a tenth of the lines")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="text files")
    parser.add_argument("--random", type=int, default=20000, help="number of random strings (default 20000)")
    parser.add_argument("--cased", action="store_true", help="for a directory with vocab.txt alone: keep upper case")
    parser.add_argument("--offsets", action="store_true", help="compare offsets and words instead of decoded texts")
    parser.add_argument("--batch_size", type=int, default=1024, help="lines a call (default 1024)")
    arguments = parser.parse_args()
    lines = [line for path in arguments.files for line in read_lines(path)]
    if arguments.tokenizer in EXPRESSIONS:
        tokenizer = trained(arguments.tokenizer, lines[::10])
    else:
        tokenizer = load(arguments.tokenizer, arguments)
    start = time.perf_counter()
    graph = graph_tokenizer(tokenizer, check=False)
    print(f"built in {time.perf_counter() - start:.1f} s")
    for name, texts in (("files", lines), ("random strings", random_texts(arguments.random))):
        if texts:
            comparison = compare_offsets if arguments.offsets else compare
            comparison(name, texts, tokenizer, graph, arguments.batch_size)


if __name__ == "__main__":
    main()

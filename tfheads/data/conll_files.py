"""Files of labelled words: a word and its labels on each line, an empty line between sentences, as those of CoNLL."""

from collections.abc import Iterable

import datasets

from tfheads.data.sources import Files, check_utf8, find_files

DOCUMENT = "-DOCSTART-"


def read_conll(files: Files, label_column: int = -1) -> datasets.Dataset:
    """The sentences as rows: `tokens`, a list of words, and `tags`, a list of as many labels.

    Args:
        files: as in `tfheads.data.sources.load_text`.
        label_column: which of a line's columns is the label; the first is the word.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line without a label, no sentence at all, or text that is not UTF-8.
    """
    rows = [row for path in find_files(files) for row in _sentences(path, label_column)]
    if not rows:
        raise ValueError(f"{files} holds no sentences")
    words = {"tokens": [[word for word, _ in row] for row in rows]}
    return datasets.Dataset.from_dict({**words, "tags": [[label for _, label in row] for row in rows]})


def _sentences(path: str, label_column: int) -> Iterable[list[tuple[str, str]]]:
    check_utf8(path)
    sentence: list[tuple[str, str]] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            columns = line.split()
            if columns and columns[0] != DOCUMENT and not line.startswith("# "):
                if not -len(columns) < label_column < len(columns) or len(columns) < 2:
                    raise ValueError(f"line {number} of {path} must hold a word and its label, got {line.strip()!r}")
                sentence.append((columns[0], columns[label_column]))
            elif sentence:
                yield sentence
                sentence = []
    if sentence:
        yield sentence

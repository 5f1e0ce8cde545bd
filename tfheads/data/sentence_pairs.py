"""Pairs of sentences from documents, half of which follow each other, as BERT saw them (Devlin et al. 2018)."""

import random
import re
from collections.abc import Iterable, Iterator, Sequence

import datasets
from transformers import PreTrainedTokenizerBase

SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
LABEL = "next_sentence_label"
FOLLOWS, RANDOM = 0, 1


def documents(texts: Iterable[str | None]) -> list[list[str]]:
    """Texts as lists of sentences.

    Where there are empty texts, they stand between documents (lines of a file); else each text is a document.
    A sentence ends with a line, or with a full stop, a question or an exclamation mark before a space.

    Args:
        texts: rows of a corpus.
    """
    texts = [(text or "").strip() for text in texts]
    apart = "" not in texts
    found: list[list[str]] = [[]]
    for text in texts:
        if (apart or not text) and found[-1]:
            found.append([])
        found[-1] += [sentence for sentence in SENTENCE_END.split(text) if sentence]
    return [document for document in found if document]


def sentence_pairs(
    texts: Iterable[str | None],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    short_probability: float = 0.1,
    seed: int = 0,
) -> datasets.Dataset:
    """Rows of two parts, each of one or more sentences; the second part follows the first or is of another document.

    Args:
        texts: rows of a corpus; see `documents`.
        tokenizer: one with `cls_token` and `sep_token`.
        max_length: tokens of a row at most, special tokens included.
        short_probability: part of the rows that aims at fewer tokens, any number from 2.
        seed: of all choices.

    Returns:
        `input_ids`, `token_type_ids` and `next_sentence_label`: 0 where the second part follows, 1 where it does not.

    Raises:
        ValueError: the tokenizer lacks a token, `max_length` leaves no room, or there are fewer than two documents.
    """
    for name in ("cls_token", "sep_token"):
        if getattr(tokenizer, name) is None:
            raise ValueError(f"tokenizer must have a {name} to join two sentences, got none")
    if max_length < 5:
        raise ValueError(f"max_length must be at least 5, two tokens and three special ones, got {max_length}")
    split = documents(texts)
    flat = tokenizer([one for document in split for one in document], add_special_tokens=False, verbose=False)
    ids = iter(flat["input_ids"])
    tokens = [[row for row in (next(ids) for _ in document) if row] for document in split]
    tokens = [document for document in tokens if document]
    if len(tokens) < 2:
        raise ValueError(
            "texts must hold at least 2 documents (empty lines stand between them) to draw sentences from another, "
            f"got {len(tokens)}"
        )
    draw, rows = random.Random(seed), []
    for index in range(len(tokens)):
        rows += _pairs(tokens, index, max_length - 3, short_probability, draw)
    draw.shuffle(rows)
    return datasets.Dataset.from_dict(_columns(rows, tokenizer))


def _pairs(tokens, index: int, room: int, short_probability: float, draw: random.Random) -> Iterator[tuple]:
    """The rows (first part, second part, label) of one document."""
    document, start = tokens[index], 0
    while start < len(document):
        target = draw.randint(2, room) if draw.random() < short_probability else room
        stop, length = start, 0
        while stop < len(document) and length < target:
            length += len(document[stop])
            stop += 1
        middle = draw.randint(start + 1, max(start + 1, stop - 1))
        first = _joined(document[start:middle])
        follows = middle < stop and draw.random() < 0.5
        if follows:
            second = _joined(document[middle:stop])
        else:
            second = _from_another(tokens, index, target - min(len(first), target - 1), draw)
            stop = middle  # what was not used comes again
        yield *_cut(first, second, room, draw), FOLLOWS if follows else RANDOM
        start = stop


def _from_another(tokens, index: int, length: int, draw: random.Random) -> list[int]:
    """Sentences of another document, at least `length` tokens if it has so many from there on."""
    other = draw.randrange(len(tokens) - 1)
    document = tokens[other + (other >= index)]
    start = draw.randrange(len(document))
    found: list[int] = []
    for sentence in document[start:]:
        if len(found) >= length:
            break
        found = found + sentence
    return found


def _cut(first: list[int], second: list[int], room: int, draw: random.Random) -> tuple[list[int], list[int]]:
    """Both parts together at most `room` tokens: the longer one loses some at either end."""
    excess = max(0, len(first) + len(second) - room)
    keep_second = min(len(second), max(room // 2, room - len(first)))
    keep_first = min(len(first), room - keep_second)

    def kept(part: list[int], size: int) -> list[int]:
        begin = draw.randint(0, len(part) - size) if excess else 0
        return part[begin : begin + size]

    return kept(first, keep_first), kept(second, keep_second)


def _columns(rows: Sequence[tuple], tokenizer) -> dict[str, list]:
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    return {
        "input_ids": [[start, *first, end, *second, end] for first, second, _ in rows],
        "token_type_ids": [[0] * (len(first) + 2) + [1] * (len(second) + 1) for first, second, _ in rows],
        LABEL: [label for _, _, label in rows],
    }


def _joined(sentences: Sequence[list[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]

"""Labels of words as labels of tokens, and predictions of tokens as labels of words.

A word is cut into pieces by the tokenizer. Its label belongs to the first piece; the others are ignored, or have the
label of a continuation. Nothing here needs TensorFlow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from tfheads.data.masking import IGNORED


def continuation_labels(names: Sequence[str]) -> list[int]:
    """For each label the one that goes on with it: that of "I-PER" for "B-PER" if there is one, else itself.

    Args:
        names: the names of the labels, in the order of their numbers.
    """
    numbers = {name: number for number, name in enumerate(names)}
    return [
        numbers.get("I-" + name.removeprefix("B-"), number) if name.startswith("B-") else number
        for number, name in enumerate(names)
    ]


def aligned_labels(
    word_ids: Sequence[int | None], labels: Sequence[int], continuations: Sequence[int] | None = None
) -> list[int]:
    """The labels of tokens, -100 where nothing is to be learned.

    Args:
        word_ids: for each token the number of its word, None for special tokens; `BatchEncoding.word_ids`.
        labels: the label of each word, -100 for none.
        continuations: see `continuation_labels`; the pieces after the first have these. None ignores them.

    Raises:
        ValueError: a token belongs to a word that has no label.
    """
    aligned, before = [], None
    for word in word_ids:
        if word is None:
            aligned.append(IGNORED)
        elif word >= len(labels):
            raise ValueError(f"labels must be as many as words, got {len(labels)} labels and a word {word + 1}")
        elif word != before or labels[word] == IGNORED:
            aligned.append(int(labels[word]))
        else:
            aligned.append(IGNORED if continuations is None else continuations[labels[word]])
        before = word
    return aligned


def token_classification_features(
    examples: Mapping[str, Sequence],
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    *,
    max_length: int | None = None,
    label_all_tokens: bool = False,
    tokens_column: str = "tokens",
    labels_column: str | None = "ner_tags",
) -> dict[str, list]:
    """Rows of words as rows of tokens: the model's inputs and `labels`; for `datasets.map(batched=True)`.

    Args:
        examples: columns; a row of `tokens` is a list of words, a row of `ner_tags` a list of numbers or of names of
            labels.
        tokenizer: a fast one, which knows the word of each token.
        names: the names of the labels, in the order of their numbers.
        max_length: rows are cut after so many tokens, special tokens included; None for the tokenizer's own limit.
        label_all_tokens: whether the pieces of a word after the first are learned too, "B-" as "I-".
        tokens_column, labels_column: where they are; a label of -100 is not learned; `labels_column` None for rows
            without labels.

    Raises:
        TypeError: the tokenizer is a slow one, a row is a string in place of a list of words.
        ValueError: as many labels as words are needed, a label is not known, or the tokenizer needs
            `add_prefix_space=True` to take words.
    """
    check_words_tokenizer(tokenizer)
    rows = [check_words(words) for words in examples[tokens_column]]
    encoded = tokenizer(
        rows,
        is_split_into_words=True,
        truncation=max_length is not None or tokenizer.model_max_length < 1e9,
        max_length=max_length,
        return_attention_mask=True,
        verbose=False,
    )
    features = {name: list(values) for name, values in encoded.items()}
    if labels_column is None:
        return features
    continuations = continuation_labels(names) if label_all_tokens else None
    numbers = {name: number for number, name in enumerate(names)}
    features["labels"] = []
    for row, (words, given) in enumerate(zip(rows, examples[labels_column], strict=True)):
        if len(words) != len(given):
            raise ValueError(
                f"{labels_column} must be as many as {tokens_column}, got {len(given)} labels for {len(words)} words, "
                f"{' '.join(words)[:40]!r}"
            )
        labels = [_number(label, numbers, labels_column) for label in given]
        features["labels"].append(aligned_labels(encoded.word_ids(row), labels, continuations))
    return features


def labels_of_words(
    predictions: Sequence[np.ndarray], labels: Sequence[np.ndarray], names: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """What was predicted and what is right, by name, where there is a label: what seqeval compares.

    Args:
        predictions: numbers of labels `[rows, time]`, or logits `[rows, time, labels]`, or lists of such rows.
        labels: `[rows, time]`, -100 where there is none.
        names: the names of the labels.

    Raises:
        ValueError: predictions and labels of different shapes.
    """
    predicted, right = [], []
    if len(predictions) != len(labels):
        raise ValueError(f"predictions must be as many rows as labels, {len(labels)}, got {len(predictions)}")
    for found, wanted in zip(predictions, labels, strict=True):
        found, wanted = np.asarray(found), np.asarray(wanted)
        found = found.argmax(-1) if found.ndim == 2 else found
        if found.shape != wanted.shape:
            raise ValueError(f"predictions must have the shape of labels, {wanted.shape}, got {found.shape}")
        known = wanted != IGNORED
        predicted.append([names[number] for number in found[known]])
        right.append([names[number] for number in wanted[known]])
    return predicted, right


def check_words(words: Any) -> list[str]:
    """The words of a row as a list.

    Raises:
        TypeError: it is a string, or holds something else than strings.
    """
    if isinstance(words, (str, bytes, Mapping)) or not hasattr(words, "__iter__"):
        raise TypeError(f"words must be a list of strings, got {type(words).__name__}")
    words = list(words)
    wrong = next((word for word in words if not isinstance(word, str)), None)
    if wrong is not None or None in words:
        raise TypeError(f"words must be a list of strings, got {type(wrong).__name__} in it")
    return words


def check_words_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Requires a tokenizer that takes words and knows which token is of which.

    Raises:
        TypeError: a slow one.
        ValueError: byte-level pieces that know no word from its continuation.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(f"tokenizer must be a fast one, which knows words, got {type(tokenizer).__name__}")
    first_step = tokenizer.backend_tokenizer.pre_tokenizer
    if isinstance(first_step, ByteLevel) and not first_step.add_prefix_space:
        raise ValueError(
            f"tokenizer must be loaded with add_prefix_space=True to take words, got add_prefix_space=False in "
            f"{type(tokenizer).__name__}"
        )


def _number(label: Any, numbers: Mapping[str, int], column: str) -> int:
    if isinstance(label, str):
        if label not in numbers:
            raise ValueError(f"{column} must be labels of the model, {', '.join(numbers)}, got {label!r}")
        return numbers[label]
    if label != IGNORED and not 0 <= label < len(numbers):
        raise ValueError(f"{column} must be {IGNORED} or from 0 to {len(numbers) - 1}, got {label}")
    return int(label)

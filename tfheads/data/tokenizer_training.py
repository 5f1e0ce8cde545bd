"""Tokenizers trained on one's own text, as the transformers classes that the checkpoints of GPT-2 and BERT use.

`save_pretrained` of what comes back writes `tokenizer.json` with the whole vocabulary (and merges), which
`AutoTokenizer.from_pretrained` and the in-graph tokenizers read.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

import datasets
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, GPT2Tokenizer

END_OF_TEXT = "<|endoftext|>"
BERT_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

Texts = Iterable[str] | datasets.Dataset | datasets.IterableDataset


def train_byte_level_bpe(
    texts: Texts,
    vocab_size: int = 8192,
    *,
    min_frequency: int = 2,
    model_max_length: int | None = None,
    end_of_text: str = END_OF_TEXT,
    text_column: str = "text",
    show_progress: bool = False,
) -> GPT2Tokenizer:
    """A byte-level BPE tokenizer like GPT-2's: no text is unknown to it, decoding gives the text back.

    As in GPT-2 the end-of-text token is the last id, serves as beginning, end and unknown token, and there is no
    padding token. The same texts give the same tokenizer.

    Args:
        texts: strings, or a dataset with `text_column`. Read once.
        vocab_size: the most ids, the 256 bytes and the end-of-text token included. A small corpus gives fewer.
        min_frequency: how often a pair must occur to be merged.
        model_max_length: the longest input of the model in tokens, if it is known.

    Raises:
        ValueError: vocab_size below 257, or no text.
    """
    if vocab_size < 257:
        raise ValueError(f"vocab_size must be at least 257 (256 bytes and {end_of_text!r}), got {vocab_size}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=min_frequency,
        # Sorted, so that the ids of the bytes do not depend on the order of a set.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(_batches(texts, text_column), trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    # The learned tokens come first and the special token last: the trainer would put it first.
    if end_of_text in vocabulary:
        raise ValueError(f"end_of_text={end_of_text!r} is also a token learned from the text; choose another.")
    vocabulary[end_of_text] = len(vocabulary)
    return GPT2Tokenizer(
        vocab=dict(sorted(vocabulary.items(), key=lambda item: item[1])),
        merges=_merges(tokenizer),
        unk_token=end_of_text,
        bos_token=end_of_text,
        eos_token=end_of_text,
        **({} if model_max_length is None else {"model_max_length": model_max_length}),
    )


def train_wordpiece(
    texts: Texts,
    vocab_size: int = 8192,
    *,
    lowercase: bool = True,
    min_frequency: int = 2,
    limit_alphabet: int = 1000,
    model_max_length: int | None = None,
    text_column: str = "text",
    show_progress: bool = False,
) -> BertTokenizer:
    """A WordPiece tokenizer like BERT's, with [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3 and [MASK] 4.

    The same texts give the same tokenizer.

    Args:
        texts: strings, or a dataset with `text_column`. Read three times; an iterator is kept in memory for that.
        vocab_size: the most ids, the five special tokens included. A small corpus gives fewer.
        lowercase: lower case and no accents, as in bert-base-uncased.
        min_frequency: how often a pair must occur to be merged.
        limit_alphabet: the most characters to keep; words with others become [UNK].
        model_max_length: the longest input of the model in tokens, if it is known.

    Raises:
        ValueError: vocab_size below the special tokens and characters, or no text.
    """
    if vocab_size <= len(BERT_SPECIAL_TOKENS):
        raise ValueError(f"vocab_size must be above {len(BERT_SPECIAL_TOKENS)} (the special tokens), got {vocab_size}.")
    if isinstance(texts, Iterator):
        texts = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    alphabet = _alphabet(_batches(texts, text_column), normalizer, limit_alphabet)

    def trained(size: int, first_tokens: list[str]) -> dict[str, int]:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=min_frequency,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            special_tokens=first_tokens,
            show_progress=show_progress and size > 1,
        )
        tokenizer.train_from_iterator(_batches(texts, text_column), trainer)
        return tokenizer.get_vocab()

    # The trainer numbers single characters inside words in the order of a hash table, another one in every run, and
    # breaks ties by these numbers. A first pass finds them, and the second is given them in a fixed order.
    characters = sorted(set(trained(1, BERT_SPECIAL_TOKENS)) - set(BERT_SPECIAL_TOKENS))
    characters.sort(key=lambda token: (len(token), token))
    vocabulary = trained(vocab_size, BERT_SPECIAL_TOKENS + characters)
    if len(vocabulary) > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is below the {len(vocabulary)} special tokens and characters of the text; "
            "raise it or lower limit_alphabet."
        )
    return BertTokenizer(
        vocab=dict(sorted(vocabulary.items(), key=lambda item: item[1])),
        do_lower_case=lowercase,
        **({} if model_max_length is None else {"model_max_length": model_max_length}),
    )


def _batches(texts: Texts, text_column: str) -> Iterator[list[str]]:
    """The texts in lists of a thousand. Raises ValueError after the last one when none had a character."""
    if isinstance(texts, str):
        raise TypeError("texts must be an iterable of strings or a dataset, got one string.")
    if isinstance(texts, datasets.Dataset | datasets.IterableDataset):
        texts = (row[text_column] for row in texts.select_columns(text_column))
    any_text, batch = False, []
    for text in texts:
        any_text = any_text or bool(text.strip())
        batch.append(text)
        if len(batch) == 1000:
            yield batch
            batch = []
    if not any_text:
        raise ValueError("texts is empty: a tokenizer needs text to be trained on.")
    yield batch


def _alphabet(batches: Iterable[list[str]], normalizer: normalizers.Normalizer, limit: int) -> list[str]:
    """The most frequent characters of the normalised texts, at most `limit`, spaces not among them."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(normalizer.normalize_str("\n".join(batch)))
    characters = [character for character in counts if not character.isspace()]
    return sorted(characters, key=lambda character: (-counts[character], character))[:limit]


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]

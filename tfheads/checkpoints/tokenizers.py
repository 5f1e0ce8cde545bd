"""The tokenizer of a checkpoint."""

import os
from pathlib import Path

import transformers

from tfheads.checkpoints import hub

# What a vocabulary is kept in; AutoTokenizer makes an empty tokenizer where there is none of these, and says nothing.
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.spm", "*.bpe", "*.tiktoken", "vocab.*")


def load_tokenizer(
    name_or_path: str | os.PathLike,
    *,
    revision: str | None = None,
    token: "str | bool | None" = None,
    cache_dir: str | None = None,
    **options,
) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer in a directory or a repository of the Hub.

    Args:
        name_or_path: a directory, or the id of a repository.
        revision, token, cache_dir: as in `from_pretrained`.
        options: of the tokenizer.

    Raises:
        FileNotFoundError: there is no such place, or no vocabulary in it.
    """
    directory = hub.resolve(name_or_path, revision=revision, token=token, cache_dir=cache_dir, weights=False)
    if not any(path for pattern in VOCABULARY_FILES for path in Path(directory).glob(pattern)):
        raise FileNotFoundError(f"{name_or_path} has no tokenizer: there is no tokenizer.json and no vocabulary file")
    return transformers.AutoTokenizer.from_pretrained(directory, **options)

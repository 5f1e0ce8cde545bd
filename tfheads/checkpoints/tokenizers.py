"""The tokenizer of a checkpoint."""

import os
import warnings
from pathlib import Path

import transformers

from tfheads.checkpoints import hub
from tfheads.deferred_torch import DtypeNames, torch_deferred

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
        ValueError: there is a SentencePiece model, and nothing that says of which class the tokenizer is; transformers
            then leaves out the space and the special tokens that texts begin with.
    """
    directory = hub.resolve(name_or_path, revision=revision, token=token, cache_dir=cache_dir, weights=False)
    if not any(path for pattern in VOCABULARY_FILES for path in Path(directory).glob(pattern)):
        raise FileNotFoundError(f"{name_or_path} has no tokenizer: there is no tokenizer.json and no vocabulary file")
    with warnings.catch_warnings(), torch_deferred(DtypeNames):
        # Marian's tokenizer asks for it, and does not use it when it makes tokens.
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **options)
    is_guessed = type(tokenizer) is transformers.TokenizersBackend and not Path(directory, "tokenizer.json").is_file()
    if is_guessed and any(Path(directory).glob("*.model")):
        raise ValueError(
            f"{name_or_path} must have tokenizer.json, or a tokenizer_config.json that names the tokenizer_class of "
            "its SentencePiece model, got neither"
        )
    return tokenizer

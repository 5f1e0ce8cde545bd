"""Whether a model has a row in its token table for each id, of a tokenizer or of data."""

import tensorflow as tf
import transformers


def highest_id(tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    """The highest token id that a tokenizer may give, which is above its number of tokens if there are gaps; or -1."""
    return max(tokenizer.get_vocab().values(), default=-1)


def check_tokenizer(tokenizer: transformers.PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Requires a tokenizer all of whose ids a model with `vocab_size` tokens takes.

    Raises:
        ValueError: it has others.
    """
    check_token_ids("the tokenizer", 0, highest_id(tokenizer), vocab_size)


def check_data(ids: tf.Tensor, vocab_size: int) -> None:
    """Requires data, ids of any shape, that a model with `vocab_size` tokens takes.

    Raises:
        ValueError: it has other ids.
    """
    check_token_ids("the data", int(tf.reduce_min(ids)), int(tf.reduce_max(ids)), vocab_size)


def check_token_ids(whose: str, lowest: int, highest: int, vocab_size: int) -> None:
    """Requires token ids from 0 on and below `vocab_size`.

    Raises:
        ValueError: `lowest` or `highest` is none.
    """
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(
            f"{whose} has the token id {wrong}, but the model only {vocab_size} tokens, 0 .. {vocab_size - 1}: "
            "they do not belong together; use the model's own tokenizer"
        )

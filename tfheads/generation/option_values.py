"""Options of generation as what processors read, and the values that they accept."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfheads.generation.beams import EARLY
from tfheads.generation.processors import Bias

WHOLE = "a whole number of at least"
NUMBERS = {
    "max_new_tokens": (None, "a number"),
    "max_length": (None, "a number"),
    "min_length": (lambda x: int(x) == x and x >= 0, f"{WHOLE} 0"),
    "num_beams": (lambda x: int(x) == x and x >= 1, f"{WHOLE} 1"),
    "num_beam_groups": (lambda x: int(x) == x and x >= 1, f"{WHOLE} 1"),
    "num_return_sequences": (lambda x: int(x) == x and x >= 1, f"{WHOLE} 1"),
    "length_penalty": (np.isfinite, "a finite number"),
    "penalty_alpha": (lambda x: 0 <= x <= 1, "between 0 and 1"),
    "diversity_penalty": (lambda x: 0 <= x < np.inf, "at least 0"),
    "temperature": (lambda x: 0 < x < np.inf, "above 0"),
    "top_k": (lambda x: x >= 0 and int(x) == x, f"{WHOLE} 0 (0 for no limit)"),
    "top_p": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "min_p": (lambda x: 0 <= x <= 1, "between 0 and 1"),
    "typical_p": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "epsilon_cutoff": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "eta_cutoff": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "repetition_penalty": (lambda x: 0 < x < np.inf, "above 0"),
    "encoder_repetition_penalty": (lambda x: 0 < x < np.inf, "above 0"),
    "no_repeat_ngram_size": (lambda x: int(x) == x and x >= 0, f"{WHOLE} 0"),
    "encoder_no_repeat_ngram_size": (lambda x: int(x) == x and x >= 0, f"{WHOLE} 0"),
}
"""Options that are one number: which are accepted, in code and in words."""

SWITCHES = (
    "do_sample",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
)


class Model(NamedTuple):
    """What values depend on: the vocabulary's size, the ends of rows, the prompts' lengths `[batch]`."""

    vocab: int
    ends: tuple[int, ...]
    lengths: np.ndarray


def check_numbers(values: Mapping) -> None:
    """Raises for options that are numbers or switches, and given as something else or out of range.

    Raises:
        ValueError: in one sentence.
    """
    for name, (accepts, words) in NUMBERS.items():
        value = values[name]
        if value is None:
            continue
        if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
            raise ValueError(f"{name} must be a number, got {value!r}")
        if accepts is not None and not accepts(value):
            hint = "; for the likeliest token do_sample=False" if name == "temperature" else ""
            raise ValueError(f"{name} must be {words}, got {value!r}{hint}")
    least = values["min_new_tokens"]
    if least is not None and np.asarray(least).dtype.kind not in "iuf":
        raise ValueError(f"min_new_tokens must be a number, got {least!r}")
    if least is not None and (np.asarray(least) < 0).any():
        raise ValueError(f"min_new_tokens must be at least 0, got {least!r}")
    for name in SWITCHES:
        if not isinstance(values[name], (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False, got {values[name]!r}")


def token_ids(name: str, value, vocab: int, strict: bool = True) -> tuple[int, ...]:
    """One token or several, as a tuple.

    Args:
        strict: whether ids out of the vocabulary are an error; or else they are left out, as they cannot occur.

    Raises:
        ValueError: something else than whole numbers, or ids out of the vocabulary.
    """
    ids = np.asarray([] if value is None else value)
    if ids.ndim > 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be a token id or a list of them, got {value!r}")
    ids = np.atleast_1d(ids).tolist()
    outside = [one for one in ids if not 0 <= one < vocab]
    if outside and strict:
        none = ", or [] for no end" if name == "eos_token_id" else ""
        raise ValueError(f"{name} must be between 0 and {vocab - 1}{none}, got {outside[0]}")
    return tuple(int(one) for one in ids if one not in outside)


def _number(value, values, model):
    return np.asarray(value, "float32")


def _whole(value, values, model):
    return np.asarray(value, "int32")


def _nothing(value, values, model):
    return np.asarray(0)


def _listed(name):
    """Which tokens of the vocabulary are named by a list of ids."""

    def mask(value, values, model):
        which = np.zeros(model.vocab, bool)
        which[list(token_ids(name, value, model.vocab))] = True
        return which

    return mask


def _one_token(name):
    def token(value, values, model):
        ids = token_ids(name, value, model.vocab)
        if len(ids) != 1:
            raise ValueError(f"{name} must be one token id, got {value!r}")
        return np.asarray(ids[0], "int32")

    return token


def _forced_begin(value, values, model):
    token = _one_token("forced_bos_token_id")(value, values, model)
    _not_suppressed("forced_bos_token_id", np.arange(model.vocab) == token, values, model)
    return token


def _forced_end(value, values, model):
    which = _listed("forced_eos_token_id")(value, values, model)
    _not_suppressed("forced_eos_token_id", which, values, model)
    return which


def _not_suppressed(name, which, values, model):
    suppressed = values["suppress_tokens"]
    if suppressed is not None and not (which & ~_listed("suppress_tokens")(suppressed, values, model)).any():
        raise ValueError(f"{name} must not be among suppress_tokens, got {values[name]!r}")


def _begin(value, values, model):
    """The tokens, and whether a first token is forced, so that the beginning is behind it."""
    forced = values["forced_bos_token_id"] is not None
    return _listed("begin_suppress_tokens")(value, values, model), np.asarray(forced)


def _growing(value, values, model):
    if np.shape(value) != (2,) or not value[0] >= 0 or not value[1] > 0:
        raise ValueError(
            f"exponential_decay_length_penalty must be (first step, factor) of at least 0 and above 0, got {value!r}"
        )
    return np.asarray(value, "float32")


def _bad_words(value, values, model):
    ends = [[one] for one in model.ends]  # never excluded, as in transformers
    wrong = f"bad_words_ids must be a list, not empty, of lists of token ids, got {value!r}"
    if not isinstance(value, (list, tuple)) or not value or not all(_is_sequence(words) for words in value):
        raise ValueError(wrong)
    pairs = [(list(words), -np.inf) for words in value if list(words) not in ends]
    return bias("bad_words_ids", pairs, model.vocab)


def _sequence_bias(value, values, model):
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    wrong = f"sequence_bias must be pairs of token ids and a number, as in [[[5, 7], -2.0]], got {value!r}"
    if not isinstance(pairs, (list, tuple)) or not pairs:
        raise ValueError(wrong)
    for pair in pairs:
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_sequence(pair[0])
        if not fits or not isinstance(pair[1], (int, float)):
            raise ValueError(wrong)
    return bias("sequence_bias", [(list(ids), number) for ids, number in pairs], model.vocab)


def _is_sequence(ids) -> bool:
    return isinstance(ids, (list, tuple)) and bool(ids) and all(isinstance(one, (int, np.integer)) for one in ids)


def bias(name: str, pairs: list, vocab: int) -> Bias:
    """The bias for pairs of token ids and a number; the number and the length of sequences are padded."""
    for ids, _ in pairs:
        token_ids(name, ids, vocab)
    alone = np.zeros(vocab, "float32")
    for ids, number in pairs:
        if len(ids) == 1:
            alone[ids[0]] += number
    longer = [(ids, number) for ids, number in pairs if len(ids) > 1]
    count = 1 << (len(longer) - 1).bit_length() if longer else 0
    longest = 1 << (max([len(ids) - 1 for ids, _ in longer] or [1]) - 1).bit_length()
    prefixes = np.full((count, longest), -2, "int32")
    last, numbers = np.zeros(count, "int32"), np.zeros(count, "float32")
    for row, (ids, number) in enumerate(longer):
        prefixes[row] = -1
        prefixes[row, longest - len(ids) + 1 :] = ids[:-1]
        last[row], numbers[row] = ids[-1], number
    return Bias(alone, prefixes, last, numbers)


VALUES = {
    "sequence_bias": _sequence_bias,
    "diversity_penalty": _number,
    "encoder_repetition_penalty": _number,
    "repetition_penalty": _number,
    "no_repeat_ngram_size": _whole,
    "encoder_no_repeat_ngram_size": _whole,
    "bad_words_ids": _bad_words,
    "min_new_tokens": _whole,
    "forced_bos_token_id": _forced_begin,
    "forced_eos_token_id": _forced_end,
    "remove_invalid_values": _nothing,
    "exponential_decay_length_penalty": _growing,
    "suppress_tokens": _listed("suppress_tokens"),
    "begin_suppress_tokens": _begin,
    "temperature": _number,
    "top_k": _whole,
    "top_p": _number,
    "min_p": _number,
    "typical_p": _number,
    "epsilon_cutoff": _number,
    "eta_cutoff": _number,
    "renormalize_logits": _nothing,
    "length_penalty": _number,
    "early_stopping": lambda value, values, model: np.asarray(EARLY[value], "int32"),
    "penalty_alpha": _number,
}
"""For each option what makes the arrays that are read of it, from its value, all values and the model."""

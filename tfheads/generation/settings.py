"""What `generate` was asked for: the model's `GenerationConfig` and the call's own arguments, checked."""

import difflib
from dataclasses import dataclass

import numpy as np
import transformers

DEFAULT_NEW_TOKENS = 20  # as in transformers

# Options that this version does not have, with the values at which they change nothing.
NEUTRAL = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "diversity_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "early_stopping": False,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict_in_generate": False,
    "token_healing": False,
    "low_memory": False,
    "guidance_scale": 1.0,
}
# Options that say how transformers is to compute, not what.
WITHOUT_EFFECT = {"use_cache", "transformers_version", "_from_model_config", "disable_compile", "is_assistant"}
OWN = {
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}


@dataclass(frozen=True)
class Settings:
    """Checked options of one call of `generate`.

    Attributes:
        max_new_tokens: for each row at most this many tokens.
        min_new_tokens: for each row `[batch]`, no end before that many tokens.
        do_sample: whether tokens are drawn, or the likeliest is taken.
        temperature, top_k, top_p: how they are drawn; 0 and 1.0 for no limit.
        eos_token_ids: tokens that end a row.
        pad_token_id: what rows that ended are filled with.
    """

    max_new_tokens: int
    min_new_tokens: np.ndarray
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    eos_token_ids: tuple[int, ...]
    pad_token_id: int


def settings(
    config: transformers.GenerationConfig, arguments: dict, lengths: np.ndarray, length_limit: int | None, vocab: int
) -> Settings:
    """The settings of a call.

    Args:
        config: the model's, or the one given to the call.
        arguments: the call's own options, which come first.
        lengths: real tokens of each prompt `[batch]`.
        length_limit: how many positions the model has, or None.
        vocab: size of the vocabulary.

    Raises:
        ValueError: an unknown option, one that this version lacks, or a value out of range.
    """
    values = _merged(config, arguments)
    _check_numbers(values)
    longest = int(lengths.max())
    new = values["max_new_tokens"]
    if new is None and values["max_length"] is not None:
        new = values["max_length"] - longest
        if new < 1:
            raise ValueError(f"max_length must be above the prompt's {longest} tokens, got {values['max_length']}")
    if new is None:
        room = DEFAULT_NEW_TOKENS if length_limit is None else max(length_limit - longest, 1)
        new = min(DEFAULT_NEW_TOKENS, room)
    _check(values, new)
    if length_limit is not None and longest + new > length_limit:
        raise ValueError(
            f"max_new_tokens must be at most {length_limit - longest} after a prompt of {longest} tokens: the model "
            f"has {length_limit} positions, got {new}"
        )
    least = values["min_new_tokens"]
    if least is None:
        least = np.maximum((values["min_length"] or 0) - lengths, 0)
    least = np.broadcast_to(np.asarray(least, "int32"), lengths.shape)
    if least.max(initial=0) > new:
        raise ValueError(f"min_new_tokens must be at most max_new_tokens {new}, got {int(least.max())}")
    ends = _token_ids("eos_token_id", values["eos_token_id"], vocab)
    pad = values["pad_token_id"]
    pad = (ends[0] if ends else 0) if pad is None else pad
    sample = bool(values["do_sample"])
    return Settings(
        max_new_tokens=int(new),
        min_new_tokens=least,
        do_sample=sample,
        temperature=1.0 if values["temperature"] is None else float(values["temperature"]),
        top_k=50 if values["top_k"] is None else int(values["top_k"]),
        top_p=1.0 if values["top_p"] is None else float(values["top_p"]),
        eos_token_ids=ends,
        pad_token_id=int(pad),
    )


def _merged(config, arguments):
    for name in arguments:
        if name not in OWN and name not in NEUTRAL and name not in WITHOUT_EFFECT and not hasattr(config, name):
            near = difflib.get_close_matches(name, sorted(OWN), n=1, cutoff=0.0)[0]
            raise ValueError(f"generation option {name!r} is not known, did you mean {near!r}")
    given = {name: value for name, value in config.to_dict().items() if value is not None}
    given |= {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        if name in OWN or name in WITHOUT_EFFECT or (name in NEUTRAL and value == NEUTRAL[name]):
            continue
        raise ValueError(f"generation option {name}={value!r} is not supported; supported are {', '.join(sorted(OWN))}")
    for new, total in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):  # the call's own come first
        if arguments.get(new) is not None:
            given.pop(total, None)
        elif arguments.get(total) is not None:
            given.pop(new, None)
    return {name: given.get(name) for name in OWN}


def _check_numbers(values):
    for name in ("max_new_tokens", "max_length", "min_new_tokens", "min_length", "temperature", "top_k", "top_p"):
        if values[name] is not None and np.asarray(values[name]).dtype.kind not in "iuf":
            raise ValueError(f"{name} must be a number, got {values[name]!r}")


def _check(values, new):
    if not isinstance(new, (int, np.integer)) or new < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {new!r}")
    temperature, top_k, top_p = values["temperature"], values["top_k"], values["top_p"]
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}; for the likeliest token do_sample=False")
    if top_k is not None and (top_k < 0 or int(top_k) != top_k):
        raise ValueError(f"top_k must be a whole number of at least 0 (0 for no limit), got {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p!r}")
    least = values["min_new_tokens"]
    if least is not None and (np.asarray(least) < 0).any():
        raise ValueError(f"min_new_tokens must be at least 0, got {least!r}")


def _token_ids(name, value, vocab) -> tuple[int, ...]:
    ids = () if value is None else tuple(int(one) for one in np.atleast_1d(np.asarray(value)))
    if any(not 0 <= one < vocab for one in ids):
        ids = tuple(one for one in ids if 0 <= one < vocab)  # a token that cannot occur ends nothing
    return ids

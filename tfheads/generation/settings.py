"""What `generate` was asked for: the model's `GenerationConfig` and the call's own arguments, checked."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import transformers

from tfheads.generation.beams import EARLY, Beams
from tfheads.generation.contrastive import Contrastive
from tfheads.generation.group_beams import GroupBeams
from tfheads.generation.loop import TokenByToken
from tfheads.generation.option_values import VALUES, Model, check_numbers, token_ids
from tfheads.generation.plan import Search
from tfheads.generation.sampling import WARPERS

DEFAULT_NEW_TOKENS = 20  # as in transformers
DEFAULT_TOP_K = 50

# The options, with the values that they have if nobody gives one; those that say how many and which tokens:
LENGTHS = dict.fromkeys(("max_new_tokens", "max_length", "min_new_tokens", "min_length"))
TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"))
# how they are found,
SEARCH = {
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "penalty_alpha": 0.0,
}
# what changes the logits; these values change nothing (but for diversity, which groups of beams need),
CHANGES = {
    "temperature": 1.0,
    "top_k": DEFAULT_TOP_K,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "exponential_decay_length_penalty": None,
    "diversity_penalty": 0.0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
}
# what ends a row, and what comes back.
ENDS = {"stop_strings": None}
OUTPUTS = dict.fromkeys(("return_dict_in_generate", "output_scores", "output_logits"), False)

OWN = {**LENGTHS, **TOKENS, **SEARCH, **CHANGES, **ENDS, **OUTPUTS}
# Options that there are not, with the values at which they change nothing.
NEUTRAL = {
    "output_attentions": False,
    "output_hidden_states": False,
    "token_healing": False,
    "guidance_scale": 1.0,
}
# Options that say how transformers is to compute, not what.
WITHOUT_EFFECT = {
    "use_cache",
    "transformers_version",
    "_from_model_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "cache_implementation",
}


@dataclass(frozen=True)
class Settings:
    """Checked options of one call of `generate`.

    Attributes:
        max_new_tokens: for each row at most this many tokens.
        min_new_tokens: for each row `[batch]`, no end before that many tokens.
        search: how tokens are found, such as `TokenByToken`.
        values: for the search and for each processor that is on what it reads, by the option's name.
        eos_token_ids: tokens that end a row.
        pad_token_id: what rows that ended are filled with.
        stop_strings: strings that end a row.
        return_dict: whether a dictionary comes back, and `outputs` which logits of each step are in it.
    """

    max_new_tokens: int
    min_new_tokens: np.ndarray
    search: Search
    values: dict
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    stop_strings: tuple[str, ...] = ()
    return_dict: bool = False
    outputs: frozenset[str] = frozenset()


def settings(
    config: transformers.GenerationConfig, arguments: Mapping, lengths: np.ndarray, length_limit: int | None, vocab: int
) -> Settings:
    """The settings of a call.

    Args:
        config: the model's, or the one given to the call.
        arguments: the call's own options, which come first.
        lengths: real tokens of each prompt `[batch]`.
        length_limit: how many positions the model has, or None.
        vocab: size of the vocabulary.

    Raises:
        ValueError: an unknown option, one that this version lacks, a value out of range, or options that contradict
            each other.
    """
    values = _merged(config, arguments)
    check_numbers(values)
    new = _new_tokens(values, int(lengths.max()), length_limit)
    least = values["min_new_tokens"]
    if least is None:
        least = np.maximum((values["min_length"] or 0) - lengths, 0)
    least = np.broadcast_to(np.asarray(least, "int32"), lengths.shape)
    if least.max(initial=0) > new:
        raise ValueError(f"min_new_tokens must be at most max_new_tokens {new}, got {int(least.max())}")
    ends = token_ids("eos_token_id", values["eos_token_id"], vocab, strict=arguments.get("eos_token_id") is not None)
    pad = values["pad_token_id"]
    search = _search(values, ends, vocab)
    model = Model(vocab, ends, lengths)
    changes = {**values, "min_new_tokens": least if ends else None}
    read = {name: make(changes[name], changes, model) for name, make in VALUES.items() if _is_on(name, changes, search)}
    returns = bool(values["return_dict_in_generate"])
    kept = {name.removeprefix("output_") for name in ("output_scores", "output_logits") if returns and values[name]}
    return Settings(
        max_new_tokens=int(new),
        min_new_tokens=least,
        search=search,
        values=read,
        eos_token_ids=ends,
        pad_token_id=int((ends[0] if ends else 0) if pad is None else pad),
        stop_strings=_stop_strings(values["stop_strings"]),
        return_dict=returns,
        outputs=frozenset(kept),
    )


def _merged(config, arguments):
    """The value of every option: the call's, the config's, or what it has if nobody gives one."""
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
    return {name: given.get(name, standard) for name, standard in OWN.items()}


def _new_tokens(values, longest, length_limit):
    new = values["max_new_tokens"]
    if new is None and values["max_length"] is not None:
        new = values["max_length"] - longest
        if new < 1:
            raise ValueError(f"max_length must be above the prompt's {longest} tokens, got {values['max_length']}")
    if new is None:
        room = DEFAULT_NEW_TOKENS if length_limit is None else max(length_limit - longest, 1)
        new = min(DEFAULT_NEW_TOKENS, room)
    if not isinstance(new, (int, np.integer)) or new < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {new!r}")
    if length_limit is not None and longest + new > length_limit:
        raise ValueError(
            f"max_new_tokens must be at most {length_limit - longest} after a prompt of {longest} tokens: the model "
            f"has {length_limit} positions, got {new}"
        )
    return new


def _search(values, ends, vocab):
    """The search that the options ask for."""
    beams, groups, returned = (int(values[name]) for name in ("num_beams", "num_beam_groups", "num_return_sequences"))
    sample = bool(values["do_sample"])
    if not isinstance(values["early_stopping"], (bool, str)) or values["early_stopping"] not in EARLY:
        raise ValueError(f"early_stopping must be True, False or 'never', got {values['early_stopping']!r}")
    if values["penalty_alpha"] > 0 and (beams > 1 or sample):
        other = f"num_beams={beams}" if beams > 1 else "do_sample=True"
        raise ValueError(f"penalty_alpha is for contrastive search, without beams and sampling, got {other}")
    if beams % groups:
        raise ValueError(f"num_beam_groups must divide num_beams {beams}, got {groups}")
    if groups > 1 and (sample or not values["diversity_penalty"] > 0):
        given = "do_sample=True" if sample else f"diversity_penalty={values['diversity_penalty']!r}"
        raise ValueError(f"num_beam_groups above 1 needs a diversity_penalty above 0 and no sampling, got {given}")
    if groups == 1 and values["diversity_penalty"]:
        raise ValueError(f"diversity_penalty is for num_beam_groups above 1, got {values['diversity_penalty']!r}")
    if beams == 1 and returned > 1 and not sample:
        raise ValueError(f"num_return_sequences must be 1 without beams and sampling, got {returned}")
    if beams > 1 and returned > beams:
        raise ValueError(f"num_return_sequences must be at most num_beams {beams}, got {returned}")
    if groups > 1:
        return GroupBeams(beams, groups, returned, len(ends))
    if beams > 1:
        return Beams(beams, returned, len(ends), sample)
    if values["penalty_alpha"] > 0 and values["top_k"] > 1:
        return Contrastive(min(int(values["top_k"]), vocab))
    return TokenByToken(sample, returned)


def _is_on(name, values, search) -> bool:
    """Whether the search or a processor reads the option's value."""
    if name in ("temperature", "top_k", "top_p"):  # always there where tokens are drawn: changing them is no new trace
        return search.sample
    if name in ("length_penalty", "early_stopping", "penalty_alpha", "diversity_penalty"):
        return name in search.options
    if name == "min_new_tokens":
        return values[name] is not None and bool(values[name].max(initial=0))
    different = values[name] is not None and values[name] is not False and values[name] != CHANGES[name]
    return different and (search.sample or name not in WARPERS)


def _stop_strings(value) -> tuple[str, ...]:
    strings = () if value is None else (value,) if isinstance(value, str) else tuple(value)
    if any(not isinstance(string, str) or not string for string in strings):
        raise ValueError(f"stop_strings must be strings that are not empty, got {value!r}")
    return strings

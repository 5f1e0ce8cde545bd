"""What generation goes on from: the caller's inputs, checked and brought to shapes for which it is compiled."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfheads.generation.plan import Prompt
from tfheads.inputs import as_array

SMALLEST_BUCKET = 16


class Given(NamedTuple):
    """The caller's inputs.

    Attributes:
        input_ids: what new tokens come behind, as given `[batch, time]`; for encoder-decoders of the target.
        mask: which of them are real.
        source, source_mask: likewise what an encoder reads; None for decoders.
    """

    input_ids: np.ndarray
    mask: np.ndarray
    source: np.ndarray | None = None
    source_mask: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Real tokens of each row `[batch]`."""
        return self.mask.sum(1).astype("int32")


def given_prompts(model, inputs, attention_mask, options: dict, config) -> Given:
    """The inputs of a call of `generate`; takes those that came as options out of them.

    Raises:
        ValueError: inputs that cannot be, in one sentence.
    """
    if isinstance(inputs, Mapping):
        options.update(inputs)
        inputs, attention_mask = None, options.pop("attention_mask", attention_mask)
    if "input_ids" in options:
        inputs = options.pop("input_ids")
    backbone = model.backbone
    if not backbone.causal:
        raise ValueError(f"{type(model).__name__} cannot generate: set is_decoder=True in its config")
    target = options.pop("decoder_input_ids", None) if backbone.encodes_source else None
    types = options.pop("token_type_ids", None)
    if types is not None and not backbone.encodes_source and np.asarray(types).any():
        raise ValueError("token_type_ids must be 0 where text is generated, got others")
    if inputs is None and not backbone.encodes_source and config.bos_token_id is not None:
        inputs, attention_mask = [[config.bos_token_id]], [[1]]
    if inputs is None:
        lacking = "" if backbone.encodes_source else ": the generation config has no bos_token_id to begin with"
        raise ValueError(f"inputs must be given{lacking or ', got none'}")
    if attention_mask is None:
        attention_mask = mask_of_padding(inputs, options, config)
    if not backbone.encodes_source:
        return Given(*_rows("input_ids", inputs, attention_mask, model.vocab_size))
    source, mask = _rows("input_ids", inputs, attention_mask, backbone.encoder.token_table.shape[0])
    limit = backbone.length_limit
    if limit is not None and source.shape[1] > limit:
        raise ValueError(f"input_ids must have at most {limit} tokens in a row, got {source.shape[1]}")
    start = target_start(options, config)
    options.pop("decoder_start_token_id", None)
    target = np.full((len(source), 1), start) if target is None else target
    target, target_mask = _rows("decoder_input_ids", target, None, model.vocab_size)
    if len(target) != len(source):
        raise ValueError(f"decoder_input_ids must have as many rows as input_ids {len(source)}, got {len(target)}")
    if (target[:, 0] != start).all():  # as transformers does it
        target, target_mask = (np.pad(rows, ((0, 0), (1, 0))) for rows in (target, target_mask))
        target[:, 0], target_mask[:, 0] = start, True
    return Given(target, target_mask, source, mask)


def mask_of_padding(inputs, options: Mapping, config) -> np.ndarray | None:
    """The mask of ids `[batch, time]` that are given without one, as transformers infers it; None for no padding.

    The padding token counts as padding unless it also ends texts, by the call's options or the generation config.
    """
    pad = options.get("pad_token_id", config.pad_token_id)
    end = options.get("eos_token_id", config.eos_token_id)
    if pad is None or pad in np.atleast_1d([] if end is None else end):
        return None
    try:
        return np.asarray(inputs) != pad
    except ValueError:  # rows of different lengths, which are refused in a moment
        return None


def packed(given: Given, width_limit: int | None, source_limit: int | None) -> Prompt:
    """The prompts with their padding on the right, as wide as a bucket."""
    source = {}
    if given.source is not None:
        width = _width(given.source.shape[1], source_limit)
        rows = (np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (given.source, given.source_mask))
        source = dict(zip(("input_ids", "attention_mask"), map(tf.constant, rows), strict=True))
    order = np.argsort(~given.mask, axis=1, kind="stable")
    rows = np.take_along_axis(np.where(given.mask, given.input_ids, 0), order, axis=1)[:, : given.lengths.max()]
    rows = np.pad(rows, ((0, 0), (0, _width(rows.shape[1], width_limit) - rows.shape[1])))
    return Prompt(tf.constant(rows), tf.constant(given.lengths), source)


def bucket(length: int) -> int:
    """The next length for which a function is compiled: a power of two, at least 16."""
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def _width(length, limit):
    return min(bucket(length), limit or bucket(length))  # there are no positions for more


def target_start(options: Mapping, config) -> int:
    """The token that an encoder-decoder's targets begin with: the call's, or that of the generation config.

    Raises:
        ValueError: there is none.
    """
    for one in (options.get("decoder_start_token_id"), config.decoder_start_token_id, config.bos_token_id):
        if one is not None:
            return int(one)
    raise ValueError("decoder_start_token_id must be given: the generation config has none, and no bos_token_id")


def _rows(name, values, attention_mask, vocab) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and boolean mask `[batch, time]`."""
    try:
        ids = np.asarray(values)
    except ValueError:
        ids = np.asarray(None)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers [batch, time] in rows of one length, got something else")
    mask = np.ones(ids.shape, bool) if attention_mask is None else as_array("attention_mask", attention_mask)
    if mask.shape != ids.shape:
        raise ValueError(f"attention_mask must have the shape of input_ids {ids.shape}, got {mask.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("attention_mask must be 1 for real tokens and 0 for padding, got other values")
    ids = ids.astype("int64").clip(-1, 2**31 - 1).astype("int32")
    if ids.size and (ids.min() < 0 or ids.max() >= vocab):
        raise ValueError(f"{name} must be between 0 and {vocab - 1}, got {ids.min() if ids.min() < 0 else ids.max()}")
    mask = mask.astype(bool)
    if not len(ids) or not mask.any(1).all():
        raise ValueError(f"{name} must have a real token in every row, got a row without one")
    return ids, mask

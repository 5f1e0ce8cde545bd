"""Normalisers inside the graph: text in, text out, as the rust library changes it."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.preprocessing import code_points, description, replacements
from tfheads.preprocessing.aligned_text import Text
from tfheads.preprocessing.character_maps import changed, per_character
from tfheads.preprocessing.charsmap import Charsmap
from tfheads.preprocessing.unicode_forms import ComposedForm, Decomposition, combining_order

Normalizer = Callable[[Text], Text]


def build(part: dict | None) -> Normalizer | None:
    """The normaliser of a tokenizer's description.

    Args:
        part: the value of "normalizer" in tokenizer.json.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    if part is None:
        return None
    if part["type"] not in BUILDERS:
        raise description.refuse(f"normalizer {part['type']}")
    return BUILDERS[part["type"]](part)


class Chain(tf.Module):
    """Normalisers one after the other."""

    def __init__(self, parts: list[Normalizer]):
        super().__init__()
        self.parts = parts

    def __call__(self, text: Text) -> Text:
        """The text after all of them."""
        for part in self.parts:
            text = part(text)
        return text


class BertNormalizer(tf.Module):
    """Cleaning, spaces around Chinese characters, removal of accents, lower case: one table for all of it.

    Only when marks remain that Unicode's canonical order may move (a few scripts have such) the steps run one by one.
    """

    def __init__(self, part: dict):
        super().__init__()
        self.whole = per_character(part)
        ranks = combining_order()
        replaced = changed(part)
        movable = {point: 1 for point, text in replaced.items() if any(ord(mark) in ranks for mark in text)}
        movable |= {point: 1 for point in ranks if point not in replaced}
        strips = part["lowercase"] if part["strip_accents"] is None else part["strip_accents"]
        self.movable = code_points.table(movable) if strips else None
        none = {
            "type": "BertNormalizer",
            "clean_text": False,
            "handle_chinese_chars": False,
            "strip_accents": False,
            "lowercase": False,
        }
        cleaning = {key: part[key] for key in ("clean_text", "handle_chinese_chars")}
        steps = [
            per_character(none | cleaning),
            Decomposition({"type": "NFD"}),
            per_character(none | {"strip_accents": True}),
        ]
        self.steps = Chain(steps + ([per_character(none | {"lowercase": True})] if part["lowercase"] else []))

    def __call__(self, text: Text) -> Text:
        """The normalised text."""
        if self.movable is None:
            return self.whole(text)
        moves = tf.reduce_any(self.movable(text.points.values) > 0)
        return tf.cond(moves, lambda: self.steps(text), lambda: self.whole(text))


BUILDERS: dict[str, Callable[[dict], Normalizer]] = {
    "BertNormalizer": BertNormalizer,
    "Lowercase": per_character,
    "NFC": ComposedForm,
    "NFD": Decomposition,
    "NFKC": ComposedForm,
    "NFKD": Decomposition,
    "Nmt": per_character,
    "Precompiled": Charsmap,
    "Prepend": replacements.Prepend,
    "Replace": replacements.build,
    "Sequence": lambda part: Chain([build(child) for child in part["normalizers"]]),
    "Strip": replacements.Strip,
    "StripAccents": per_character,
}

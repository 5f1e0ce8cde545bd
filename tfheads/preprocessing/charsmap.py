"""SentencePiece's table of replacements ("Precompiled" in tokenizer.json) inside the graph.

The rust library goes from grapheme to grapheme. One of less than six bytes becomes, as a whole, what the table has for
the shortest beginning of it that the table knows; of all others each character is replaced alone. Where graphemes end
is asked of the library with tables made for the purpose, so that its version of Unicode decides.
"""

import base64
import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text, segment_starts, utf8_lengths
from tfheads.preprocessing.piece_tries import NOWHERE, SHIFT, HashTable

SHORT = 6  # graphemes of fewer bytes are looked up as a whole
LONGEST = 3  # characters of a short grapheme
ACUTE, GRAVE, JOINER, VIRAMA, COPYRIGHT, KA = "\u0301", "\u0300", "\u200d", "\u094d", "\u00a9", "\u0915"
SCRIPTS = (range(0x3400), range(0xA000, 0xAC00), range(0xD7A4, 0xD800), range(0xF900, 0x20000), range(0xE0000, 0xE1000))
ROLES = ("controls", "joining", "leading", "pictures", "extending", "consonants", "linkers", "transparent")
HANGUL = (*range(0x1100, 0x1200), *range(0xA960, 0xA980), *range(0xAC00, 0xD800))


def replacements(charsmap: str) -> dict[str, str]:
    """What the table has for each text, read from its double array of bytes.

    Args:
        charsmap: the table in base 64: the size of the array in bytes, the array, the replacements ended by NUL.
    """
    content = base64.b64decode(charsmap)
    size = struct.unpack("<I", content[:4])[0]
    units = np.frombuffer(content, np.uint32, size // 4, 4).astype(np.int64)
    texts, found = content[4 + size :], {}
    offsets = (units >> 10) << ((units & 0x200) >> 6)
    places, keys = np.array([offsets[0]]), [b""]
    labels = np.arange(1, 256)
    while len(places):
        targets = places[:, None] ^ labels
        inside = targets < len(units)
        nodes = units[np.where(inside, targets, 0)]
        which, label = np.nonzero(inside & ((nodes & 0x800000FF) == labels))
        target = targets[which, label]
        keys = [keys[row] + bytes([value + 1]) for row, value in zip(which, label, strict=True)]
        places = target ^ offsets[target]
        for key, leaf, place in zip(keys, units[target] >> 8 & 1, places, strict=True):
            if leaf:
                begin = int(units[place] & 0x7FFFFFFF)
                found[key.decode()] = texts[begin : texts.index(b"\0", begin)].decode()
    return found


def charsmap(values: dict[str, str]) -> str:
    """A table for a few texts: the opposite of `replacements`."""
    nodes, edges = [b""], {}
    for key in values:
        for end in range(len(key.encode())):
            prefix = key.encode()[: end + 1]
            if prefix not in nodes:
                nodes.append(prefix)
                edges.setdefault(prefix[:-1], []).append(prefix)
    units, texts = np.zeros(256 * (len(nodes) + 1), np.uint32), b""
    base = {node: 256 * (number + 1) for number, node in enumerate(nodes)}
    at = {node: 0 if not node else base[node[:-1]] ^ node[-1] for node in nodes}
    for node in nodes:
        units[at[node]] = (at[node] ^ base[node]) << 10 | (node[-1] if node else 0)
    for key, value in values.items():
        units[at[key.encode()]] |= 1 << 8
        units[base[key.encode()]] = 1 << 31 | len(texts)
        texts += value.encode() + b"\0"
    return base64.b64encode(struct.pack("<I", units.nbytes) + units.tobytes() + texts).decode()


@lru_cache(maxsize=1)
def character_roles() -> dict[str, set[int]]:
    """The characters that have a part in Unicode's rules for graphemes, by their part.

    What is left out (Hangul, regional indicators) makes graphemes of six bytes and more only; ideographs, syllables and
    characters for private use are not asked about.
    """
    points = [point for block in SCRIPTS for point in block if point not in (ord("\n"), ord("="))]

    def where(key: str, text: str, wanted: Callable[[str], bool]) -> set[int]:
        """The characters for which `text`, with them in place of "_", becomes what is wanted.

        It is asked with a table that has "=" for `key` and nothing else.
        """
        table = {"type": "Precompiled", "precompiled_charsmap": charsmap({key: "="})}
        lines = description.rust("normalizer", table).normalize_str(
            "\n".join(text.replace("_", chr(p)) for p in points)
        )
        return {point for point, line in zip(points, lines.split("\n"), strict=True) if wanted(line)}

    def joined(key: str, text: str) -> set[int]:
        """The characters that join `key` to what stands before it, so that it is not looked up as a whole."""
        return where(key, text, lambda line: "=" not in line)

    leading = joined("b" + ACUTE, "_b" + ACUTE)
    pictures = joined(COPYRIGHT + ACUTE, "_" + JOINER + COPYRIGHT + ACUTE)
    return {
        "controls": where(ACUTE + GRAVE, "_" + ACUTE + GRAVE, lambda line: "=" in line) | {ord("\n")},
        "joining": where("a", "a_", lambda line: line == "="),
        "leading": leading,
        "pictures": pictures,
        "extending": joined(COPYRIGHT + ACUTE, COPYRIGHT + "_" + JOINER + COPYRIGHT + ACUTE) - pictures,
        "consonants": joined(KA + ACUTE, "_" + VIRAMA + KA + ACUTE),
        "linkers": joined(KA + ACUTE, KA + "_" + KA + ACUTE) - leading,
        "transparent": joined(KA + ACUTE, KA + VIRAMA + "_" + KA + ACUTE) - leading,
    }


class Graphemes(tf.Module):
    """Finds where graphemes begin: what Unicode's rules (UAX 29) say of graphemes of less than six bytes."""

    def __init__(self):
        super().__init__()
        flags: dict[int, int] = {}
        for bit, name in enumerate(ROLES):
            for point in character_roles()[name]:
                flags[point] = flags.get(point, 0) | 1 << bit
        self.flags = code_points.table(flags)

    def present(self, points: tf.Tensor) -> tf.Tensor:
        """Whether there may be a grapheme of several characters."""
        several = self._role(self.flags(points), "joining") | self._role(self.flags(points), "leading")
        return tf.reduce_any(several | (points == ord("\r")))

    def __call__(self, points: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """True for the first character of each grapheme `[characters]`, given those of segments."""
        flags = self.flags(points)

        def role(name: str) -> tf.Tensor:
            return self._role(flags, name)

        before = tf.roll(flags, 1, 0)
        joined = role("joining") & ~self._role(before, "controls")
        joined |= self._role(before, "leading") & ~role("controls")
        joined |= (points == ord("\n")) & (tf.roll(points, 1, 0) == ord("\r"))
        segment = tf.cumsum(tf.cast(first, tf.int32))
        joiner = (points == ord(JOINER)) & ~first
        picture = tf.roll(_last_outside(role("extending")), 1, 0)  # the last other character up to the one before
        joined_pictures = tf.roll(joiner & self._gathered(role("pictures"), segment, picture), 1, 0) & role("pictures")
        other = _last_outside(role("transparent"))
        links = tf.cumsum(tf.cast(role("linkers"), tf.int32))
        linked = self._gathered(role("consonants"), segment, other) & (links > tf.gather(links, tf.maximum(other, 0)))
        return first | ~(joined | joined_pictures | (tf.roll(linked, 1, 0) & role("consonants")))

    @staticmethod
    def _role(flags: tf.Tensor, name: str) -> tf.Tensor:
        return tf.bitwise.bitwise_and(flags, 1 << ROLES.index(name)) > 0

    @staticmethod
    def _gathered(role: tf.Tensor, segment: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Whether the characters at `places` have the role and are of the same segment as where they are named."""
        inside = tf.maximum(places, 0)
        return (places >= 0) & tf.gather(role, inside) & (tf.gather(segment, inside) == segment)


def _last_outside(flags: tf.Tensor) -> tf.Tensor:
    """The last place up to each one that has no flag `[places]`; -1 where there is none."""
    places = tf.concat([[-1], tf.cast(tf.where(~flags)[:, 0], tf.int32)], 0)
    return tf.gather(places, tf.cumsum(tf.cast(~flags, tf.int32)))


class Charsmap(tf.Module):
    """The normaliser "Precompiled".

    Raises:
        ValueError: when its table has entries that the rules of graphemes left out here decide about.
    """

    def __init__(self, part: dict):
        super().__init__()
        entries = {key: value for key, value in replacements(part["precompiled_charsmap"]).items() if key}
        entries = {key: value for key, value in entries.items() if len(key) == 1 or len(key.encode()) < SHORT}
        first = {ord(key[0]) for key in entries}
        if first & (set(HANGUL) | character_roles()["leading"]) or max(map(len, entries), default=1) > LONGEST:
            raise description.refuse("normalizer Precompiled with entries for Hangul, leading marks or long texts")
        values = sorted(set(entries.values()))
        number = {value: i + 1 for i, value in enumerate(values)}
        pairs: dict[int, int] = {}
        triples: dict[int, int] = {}
        numbers = [0]
        for key in sorted(key for key in entries if len(key) > 1):
            node = pairs.setdefault(ord(key[0]) << SHIFT | ord(key[1]), len(pairs))
            numbers += [0] * (len(pairs) + 1 - len(numbers))
            if len(key) == 2:
                numbers[node + 1] = number[entries[key]]
            else:
                triples[node << SHIFT | ord(key[2])] = number[entries[key]]
        self.single = code_points.table({ord(key): number[value] for key, value in entries.items() if len(key) == 1})
        self.pairs, self.triples, self.graphemes = HashTable(pairs), HashTable(triples), Graphemes()
        lengths = np.array([1, *map(len, values)], np.int32)
        with tf.init_scope():
            self.numbers, self.lengths = tf.constant(numbers, tf.int32), tf.constant(lengths)
            self.starts = tf.constant(np.cumsum(lengths) - lengths, tf.int32)
            self.characters = tf.constant([0, *map(ord, "".join(values))], tf.int32)

    def __call__(self, text: Text) -> Text:
        """The text with everything replaced."""
        points = text.points.values
        numbers = self.single(points)
        ones = tf.ones_like(points)
        several = self.graphemes.present(points)
        numbers, sizes = tf.cond(several, lambda: self._whole(text, numbers), lambda: (numbers, ones))
        return tf.cond(tf.reduce_any(numbers > 0), lambda: self._replaced(text, numbers, sizes), lambda: text)

    def _whole(self, text: Text, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The number of what replaces each character and how many it stands for, 0 for those in an earlier one's.

        Short graphemes are looked up as a whole.
        """
        points = text.points.values
        begins = self.graphemes(points, segment_starts(text))
        first = tf.cast(tf.where(begins)[:, 0], tf.int32)
        group = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        counts = tf.math.segment_sum(tf.ones_like(group), group)
        sizes = tf.math.segment_sum(utf8_lengths(points), group)
        short = (counts > 1) & (sizes < SHORT)
        first, counts = tf.boolean_mask(first, short), tf.boolean_mask(counts, short)
        found = self._looked_up(points, numbers, first, counts)
        hit = found > 0
        first, counts, found = (tf.boolean_mask(value, hit) for value in (first, counts, found))
        numbers = tf.tensor_scatter_nd_update(numbers, first[:, None], found)
        swallowed, offset = code_points.runs(counts - 1)
        swallowed = tf.gather(first, swallowed) + 1 + offset
        sizes = tf.tensor_scatter_nd_update(tf.ones_like(points), first[:, None], counts)
        sizes = tf.tensor_scatter_nd_update(sizes, swallowed[:, None], tf.zeros_like(swallowed))
        return numbers, sizes

    def _looked_up(self, points: tf.Tensor, numbers: tf.Tensor, first: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """The number of what replaces the shortest known beginning of graphemes, 0 where none is known."""
        alone = tf.gather(numbers, first)
        wide = tf.cast(points, tf.int64)
        shift = tf.constant(SHIFT, tf.int64)
        node = self.pairs(tf.bitwise.left_shift(tf.gather(wide, first), shift) + tf.gather(wide, first + 1))
        pair = tf.gather(self.numbers, node + 1)
        third = tf.gather(wide, tf.where(counts > 2, first + 2, first))
        triple = self.triples(tf.bitwise.left_shift(tf.cast(node, tf.int64), shift) + third)
        triple = tf.where((counts > 2) & (node != NOWHERE), tf.maximum(triple, 0), 0)
        return tf.where(alone > 0, alone, tf.where(pair > 0, pair, triple))

    def _replaced(self, text: Text, numbers: tf.Tensor, sizes: tf.Tensor) -> Text:
        lengths = tf.where(sizes == 0, 0, tf.gather(self.lengths, numbers))
        source, offset = code_points.expand(lengths)
        number = tf.gather(numbers, source)
        values = tf.gather(self.characters, tf.gather(self.starts, number) + offset)
        values = tf.where(number > 0, values, tf.gather(text.points.values, source))
        splits = code_points.splits_from_lengths(lengths)
        points = code_points.ragged(values, tf.gather(tf.cast(splits, tf.int64), text.points.row_splits))
        if text.places is None:
            return Text(points)
        return text.replaced(points, _sources(text.points, points, sizes, lengths, (source, offset)))


def _sources(old: tf.RaggedTensor, new: tf.RaggedTensor, sizes, lengths, expanded) -> tf.Tensor:
    """The old character that the rust library takes each new one to come from `[new characters]`.

    It notes of each new character whether it was inserted (1), replaces one (0), or also stands for some removed ones
    behind it (less than 0); what is replaced by nothing counts as removed behind the character before, if there is one.
    Places are then counted from the beginning of the segment.
    """
    source, offset = expanded
    size, length = tf.gather(sizes, source), tf.gather(lengths, source)
    change = tf.where(offset >= size, 1, 0) + tf.where(offset == length - 1, tf.minimum(length - size, 0), 0)
    gone = tf.where((lengths == 0) & (sizes > 0))[:, 0]
    before = tf.gather(code_points.splits_from_lengths(lengths), gone) - 1
    begin = tf.cast(tf.gather(new.row_splits, tf.gather(code_points.row_numbers(old), gone)), tf.int32)
    gone, before = tf.boolean_mask(gone, before >= begin), tf.boolean_mask(before, before >= begin)
    change = tf.tensor_scatter_nd_add(change, before[:, None], -tf.gather(sizes, gone))
    used = tf.where(change <= 0, 1 - change, 0)
    total = tf.cumsum(used, exclusive=True)
    row = code_points.row_numbers(new)
    splits = tf.cast(old.row_splits, tf.int32)
    begin = tf.gather(splits, row)
    start = tf.gather(total, tf.gather(tf.cast(new.row_splits, tf.int32), row))
    place = begin + total - start - tf.where(change > 0, 1, 0)
    return tf.clip_by_value(place, begin, tf.maximum(begin, tf.gather(splits, row + 1) - 1))

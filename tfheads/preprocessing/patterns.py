"""Regular expressions of the rust library as trees, whose single characters the library itself tells.

What is read is the part of Oniguruma's language that tokenizers have: characters, classes and properties; alternatives
and groups; repetitions, also lazy and possessive; anchors; a look at what follows, or at the one character before.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tfheads.preprocessing import code_points, description

SINGLE = re.compile(
    r"\\(?:[pP]\{\^?[A-Za-z_ ]+\}|x\{[0-9A-Fa-f]+\}|x[0-7][0-9A-Fa-f]|u[0-9A-Fa-f]{4}|[nrtfvaesSdDwWhH]|[^A-Za-z0-9])"
    r"|[^\\\[()*+?^$|]",
    re.DOTALL,
)
INTERVAL = re.compile(r"\{(?=[\d,]*\d)(\d*)(,?)(\d*)\}(\??)")
LITERAL = re.compile(r"\\?[^A-Za-z0-9\\.\[\](){}*+?^$|]|\\[.\[\](){}*+?^$|\\]|[A-Za-z0-9]", re.DOTALL)
FOLDED_LETTER = re.compile(r"\(\?i:[A-Za-z]\)")
ANY = r"[\s\S]"
# Conditions, written as looks at the characters on both sides.
ANCHORS = {
    "^": rf"(?<!{ANY})|(?<=\n)(?={ANY})",
    "$": rf"(?=\n)|(?!{ANY})",
    r"\A": rf"(?<!{ANY})",
    r"\z": rf"(?!{ANY})",
    r"\Z": rf"(?=\n(?!{ANY}))|(?!{ANY})",
    r"\b": r"(?<=\w)(?!\w)|(?<!\w)(?=\w)",
    r"\B": r"(?<=\w)(?=\w)|(?<!\w)(?!\w)",
}
MARKS = {"?": (0, 1), "*": (0, None), "+": (1, None)}
POSIX = re.compile(r"\[:\^?\w+:\]")
GROUP = re.compile(r"\(\?(?::|i:|-i:|>|=|!|<=|<!)|\((?![?*])")
MOST_REPETITIONS = 32  # of those with an upper limit, which are written out
MOST_CLASSES = 31  # a bit for each


class Single(NamedTuple):
    """One character of a class; the number of its class in the pattern."""

    number: int
    width = 1


class Sequence(NamedTuple):
    """One after the other."""

    parts: tuple

    @property
    def width(self) -> int:
        """The fewest characters that it matches."""
        return sum(part.width for part in self.parts)


class Choice(NamedTuple):
    """The first that leads to a match."""

    options: tuple

    @property
    def width(self) -> int:
        """The fewest characters that it matches."""
        return min(option.width for option in self.options)


class Repeated(NamedTuple):
    """Something from `least` to `most` times, None for any number; as often as possible, or as rarely if it is lazy."""

    part: "Node"
    least: int
    most: int | None
    lazy: bool = False

    @property
    def width(self) -> int:
        """The fewest characters that it matches."""
        return self.least * self.part.width


class Atomic(NamedTuple):
    """Something whose first match stays, whatever follows."""

    part: "Node"

    @property
    def width(self) -> int:
        """The fewest characters that it matches."""
        return self.part.width


class Look(NamedTuple):
    """A condition: something follows or, with `behind`, stands before; with `negated` it does not."""

    part: "Node"
    behind: bool
    negated: bool
    width = 0


Node = Single | Sequence | Choice | Repeated | Atomic | Look


class Pattern(NamedTuple):
    """A regular expression.

    Attributes:
        tree: what it matches.
        classes: for every code point the sum of `1 << number` over the classes that it is in, int32.
    """

    tree: Node
    classes: np.ndarray


def parsed(pattern: str, component: str) -> Pattern:
    """A regular expression of the rust library.

    Args:
        pattern: the expression.
        component: what it belongs to, for the error.

    Raises:
        ValueError: it is of a kind that is not known here, or it matches the empty text.
    """
    parser = Parser(pattern, [])
    try:
        tree = parser.choice(folded=False)
        if parser.at < len(pattern):
            raise Unknown
        if tree.width == 0:
            raise Unknown
        classes = sum(class_of(text).astype(np.int32) << number for number, text in enumerate(parser.classes))
    except Unknown:
        raise description.refuse(f"{component} with the regular expression {pattern!r}") from None
    return Pattern(tree, classes)


class Unknown(Exception):
    """A part of a regular expression of which it is not known how to search for it in the graph."""


class Parser:
    """Reads a regular expression from left to right.

    Attributes:
        at: the next character to read.
        classes: the expressions of single characters found so far.
    """

    def __init__(self, pattern: str, classes: list[str]):
        self.pattern, self.at, self.classes = pattern, 0, classes

    def choice(self, folded: bool) -> Node:
        """Alternatives up to the end of their group; `folded` where upper and lower case are the same."""
        options = [self.sequence(folded)]
        while self.pattern.startswith("|", self.at):
            self.at += 1
            options.append(self.sequence(folded))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self, folded: bool) -> Node:
        """What stands up to the next alternative."""
        begin, parts = self.at, []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self.repeated(self.item(folded)))
        text = self.pattern[begin : self.at].casefold()
        if folded and any(several in text for several in folded_to_several()):
            raise Unknown
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def repeated(self, node: Node) -> Node:
        """The node with the repetitions that stand behind it."""
        while self.at < len(self.pattern):
            interval = INTERVAL.match(self.pattern, self.at)
            if interval:
                self.at = interval.end()
                node = _several(node, *_limits(*interval.groups()), bool(interval[4]))
            elif self.pattern[self.at] in MARKS:
                least, most = MARKS[self.pattern[self.at]]
                mode = self.pattern[self.at + 1 : self.at + 2]
                self.at += 2 if mode in ("?", "+") else 1
                node = _several(node, least, most, mode == "?")
                node = Atomic(node) if mode == "+" else node
            else:
                break
        return node

    def item(self, folded: bool) -> Node:
        """A character, a class, an anchor or a group."""
        begin = self.at
        if self.pattern[begin] == "(":
            return self.group(folded)
        anchor = next((text for text in ANCHORS if self.pattern.startswith(text, begin)), None)
        if anchor is not None:
            self.at += len(anchor)
            return Parser(ANCHORS[anchor], self.classes).choice(folded=False)
        if self.pattern[begin] == "[":
            self.at = self.class_end()
        else:
            single = SINGLE.match(self.pattern, begin)
            if single is None:
                raise Unknown
            self.at = single.end()
        return self.single(self.pattern[begin : self.at], folded)

    def single(self, text: str, folded: bool) -> Single:
        """One character that an expression matches."""
        text = f"(?i:{text})" if folded else text
        if folded and class_of(text)[_folding_to_several()].any():
            raise Unknown
        if text not in self.classes:
            self.classes.append(text)
        if len(self.classes) > MOST_CLASSES:
            raise Unknown
        return Single(self.classes.index(text))

    def group(self, folded: bool) -> Node:
        """What stands in parentheses."""
        opened = GROUP.match(self.pattern, self.at)
        if opened is None:
            raise Unknown
        self.at, kind = opened.end(), opened[0]
        node = self.choice({"(?i:": True, "(?-i:": False}.get(kind, folded))
        if not self.pattern.startswith(")", self.at):
            raise Unknown
        self.at += 1
        if kind in ("(?=", "(?!", "(?<=", "(?<!"):
            if "<" in kind and not isinstance(node, Single):
                raise Unknown
            return Look(node, behind="<" in kind, negated="!" in kind)
        return Atomic(node) if kind == "(?>" else node

    def class_end(self) -> int:
        """The place behind the class that begins here, which can hold others."""
        at, depth = self.at, 0
        while at < len(self.pattern):
            character = self.pattern[at]
            if depth and self.pattern.startswith("[:", at):
                posix = POSIX.match(self.pattern, at)
                if posix is None:
                    raise Unknown
                at = posix.end()
                continue
            if character == "[":
                depth += 1
                at += self.pattern.startswith("^", at + 1)
                if self.pattern.startswith("]", at + 1):
                    raise Unknown
            depth -= character == "]"
            at += 2 if character == "\\" else 1
            if not depth:
                return at
        raise Unknown


def _limits(least: str, comma: str, most: str, lazy: str) -> tuple[int, int | None]:
    """The numbers of repetitions that an interval such as `{1,3}` names."""
    if not comma:
        if lazy:  # which the rust library takes for two repetitions
            raise Unknown
        return int(least), int(least)
    return int(least or 0), int(most) if most else None


def _several(node: Node, least: int, most: int | None, lazy: bool) -> Node:
    """A repetition, as long as it can be written out or is one of single characters."""
    if isinstance(node, Repeated) and most is None and least == 1 and not lazy and not node.lazy and node.least == 1:
        node = node.part  # once or more often what is there once to several times
    known = isinstance(node, Single) if most is None else least <= most <= MOST_REPETITIONS
    if not known or least > MOST_REPETITIONS:
        raise Unknown
    return Repeated(node, least, most, lazy)


@lru_cache(maxsize=128)
def class_of(expression: str) -> np.ndarray:
    """True for the code points that an expression of one character matches, by the rust library's own search."""
    if LITERAL.fullmatch(expression):
        return np.arange(code_points.CODE_POINTS) == ord(expression[-1])
    if FOLDED_LETTER.fullmatch(expression):  # no new character is the same as one of ASCII
        return _searched(expression, _with_case())
    found = _searched(expression, np.array(list(code_points.probed())))
    for first, alike in code_points.uniform():
        found[alike.start : alike.stop] = found[first]
    return found


def _searched(expression: str, points: np.ndarray) -> np.ndarray:
    """True for those of some code points that an expression matches."""
    part = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Removed", "invert": False}
    split = description.rust("pre_tokenizer", part).pre_tokenize_str
    found = np.zeros(code_points.CODE_POINTS, bool)
    for start in range(0, len(points), code_points.PLANE):
        chunk = points[start : start + code_points.PLANE]
        matched = np.ones(len(chunk), bool)
        for _, (begin, end) in split("".join(map(chr, chunk))):
            matched[begin:end] = False
        found[chunk] = matched
    return found


@lru_cache(maxsize=1)
def _with_case() -> np.ndarray:
    """The code points that are not the same in upper and lower case."""
    points = code_points.probed()
    return np.array([point for point in points if {chr(point)} != {chr(point).casefold(), chr(point).swapcase()}])


@lru_cache(maxsize=1)
def _folding_to_several() -> list[int]:
    """The code points that are the same as several others where upper and lower case are: "ß" and "ss"."""
    return [point for point in code_points.probed() if len(chr(point).casefold()) > 1]


@lru_cache(maxsize=1)
def folded_to_several() -> set[str]:
    """What these code points are the same as."""
    return {chr(point).casefold() for point in _folding_to_several()}

"""What a tokenizer does after its model: added tokens such as [CLS] and [SEP], type ids, the trimming of offsets."""

from typing import NamedTuple

from tfheads.preprocessing import description

TEXT, PAIR = 0, 1


class Added(NamedTuple):
    """Tokens that a template adds."""

    ids: tuple[int, ...]
    type_id: int = 0


class Sequence(NamedTuple):
    """The place of the text or of its pair in a template.

    Attributes:
        number: TEXT or PAIR.
        type_id: the type id of its tokens.
        later_type_id: their type id in the windows that overflow; the rust library does not always give these the same.
    """

    number: int
    type_id: int = 0
    later_type_id: int = 0


class Template(NamedTuple):
    """What stands in a row, from left to right."""

    pieces: tuple[Added | Sequence, ...]

    @property
    def added(self) -> int:
        """How many tokens the template adds."""
        return sum(len(piece.ids) for piece in self.pieces if isinstance(piece, Added))

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the sequences from left to right."""
        return tuple(piece.number for piece in self.pieces if isinstance(piece, Sequence))

    def bare(self) -> "Template":
        """The template without what it adds."""
        return Template(tuple(piece for piece in self.pieces if isinstance(piece, Sequence)))


class PostProcessor(NamedTuple):
    """Templates for a text and for a pair, with and without added tokens, and how offsets are trimmed.

    Attributes:
        trims: for each time that white space is cut off from the offsets, whether one space at the beginning was added
            by the tokenizer and needs no trimming.
    """

    single: Template = Template((Sequence(TEXT),))
    pair: Template = Template((Sequence(TEXT), Sequence(PAIR, 1, 1)))
    bare_single: Template = Template((Sequence(TEXT),))
    bare_pair: Template = Template((Sequence(TEXT), Sequence(PAIR, 1, 1)))
    trims: tuple[bool, ...] = ()

    def template(self, pair: bool, add_special_tokens: bool) -> Template:
        """The template of a row."""
        if add_special_tokens:
            return self.pair if pair else self.single
        return self.bare_pair if pair else self.bare_single


def build(part: dict | None) -> PostProcessor:
    """The post-processor of a tokenizer's description.

    Args:
        part: the value of "post_processor" in tokenizer.json.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    kind = None if part is None else part["type"]
    if kind is None:
        return PostProcessor()
    if kind not in BUILDERS:
        raise description.refuse(f"post_processor {kind}")
    return BUILDERS[kind](part)


def _template(part: dict) -> PostProcessor:
    single, pair = _pieces(part, "single"), _pieces(part, "pair")
    if single.order != (TEXT,):
        raise description.refuse(f"post_processor TemplateProcessing with the text {len(single.order)} times")
    if sorted(pair.order) != [TEXT, PAIR]:
        raise description.refuse("post_processor TemplateProcessing whose pair has a sequence several times")
    return PostProcessor(single, pair, single.bare(), pair.bare())


def _pieces(part: dict, name: str) -> Template:
    pieces = []
    for item in part[name]:
        ((kind, value),) = item.items()
        if kind == "Sequence":
            number = TEXT if value["id"] == "A" else PAIR
            pieces.append(Sequence(number, value["type_id"], later_type_id=number))
        else:
            pieces.append(Added(tuple(part["special_tokens"][value["id"]]["ids"]), value["type_id"]))
    return Template(tuple(pieces))


def _bert(part: dict) -> PostProcessor:
    begin, end = Added((part["cls"][1],)), (part["sep"][1],)
    single = (begin, Sequence(TEXT), Added(end))
    return PostProcessor(Template(single), Template((*single, Sequence(PAIR, 1, 1), Added(end, 1))))


def _roberta(part: dict) -> PostProcessor:
    begin, end = Added((part["cls"][1],)), (part["sep"][1],)
    single = (begin, Sequence(TEXT), Added(end))
    return PostProcessor(
        Template(single),
        Template((begin, Sequence(TEXT), Added(end * 2), Sequence(PAIR), Added(end))),
        bare_pair=Template((Sequence(TEXT), Sequence(PAIR, 0, later_type_id=1))),
        trims=_trims(part),
    )


def _trims(part: dict) -> tuple[bool, ...]:
    return (part["add_prefix_space"],) if part["trim_offsets"] else ()


def _sequence(part: dict) -> PostProcessor:
    """Several one after the other; only one of them may add tokens, and what trims must come before it."""
    whole = PostProcessor()
    for child in map(build, part["processors"]):
        added = whole.single.added or whole.pair.added
        if added and (child.single.added or child.pair.added or child.trims):
            raise description.refuse("post_processor Sequence with a part after one that adds tokens")
        whole = child._replace(trims=whole.trims + child.trims) if not added else whole
    return whole


BUILDERS = {
    "ByteLevel": lambda part: PostProcessor(trims=_trims(part)),
    "TemplateProcessing": _template,
    "BertProcessing": _bert,
    "RobertaProcessing": _roberta,
    "Sequence": _sequence,
}

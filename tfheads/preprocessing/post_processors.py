"""What a tokenizer adds around the ids of a text, such as [CLS] and [SEP]."""

from typing import NamedTuple

import tensorflow as tf

from tfheads.preprocessing import description


class Template(NamedTuple):
    """Ids before and after the ids of one text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __call__(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """The ids `[batch, (length)]` with the added ones."""
        if not self.before and not self.after:
            return ids
        rows = ids.nrows(tf.int32)
        parts = [tf.tile([self.before], [rows, 1])] if self.before else []
        parts += [ids] + ([tf.tile([self.after], [rows, 1])] if self.after else [])
        return tf.concat(parts, axis=1)


def build(part: dict | None) -> Template:
    """The template for a single text of a tokenizer's description.

    Args:
        part: the value of "post_processor" in tokenizer.json.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    kind = None if part is None else part["type"]
    if kind in (None, "ByteLevel"):  # ByteLevel changes offsets only
        return Template()
    if kind == "TemplateProcessing":
        return _template(part)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return Template((part["cls"][1],), (part["sep"][1],))
    if kind == "Sequence":
        processors = [build(child) for child in part["processors"]]
        before = sum((template.before for template in reversed(processors)), ())
        return Template(before, sum((template.after for template in processors), ()))
    raise description.refuse(f"post_processor {kind}")


def _template(part: dict) -> Template:
    sides: list[list[int]] = [[]]
    for item in part["single"]:
        if "Sequence" in item:
            sides.append([])
        else:
            sides[-1] += part["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    if len(sides) != 2:
        raise description.refuse(f"post_processor TemplateProcessing with the text {len(sides) - 1} times")
    return Template(tuple(sides[0]), tuple(sides[1]))

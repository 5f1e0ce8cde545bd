"""Writes docs/families.md from the registry and the stored reference outputs: `python -m tests.families_page`."""

from pathlib import Path

from tests.fixtures import reference
from tfheads import registry

PAGE = Path(__file__).parents[1] / "docs" / "families.md"

INTRODUCTION = """\
<!-- Made by `python -m tests.families_page` from the registry and tests/fixtures; a test compares. -->

# Families

The architectures that tfheads has, with every class of each. `AutoModelFor...` finds the class for a checkpoint; the
old `TF...` spellings are the same classes.

A *case* is a tiny model of one configuration, whose results PyTorch computed. [The suite](../tests/test_families.py)
wants the same of tfheads: outputs and loss within 1e-5, eagerly with and without padding, and once under XLA; the
hidden states; the gradient of every weight; the names and the bytes of the checkpoint, in and out; and the generated
tokens where *generations* are counted. (`make test` has one case of each family under XLA, all heads of five families,
the keys and the generations of one; the others are in `make test-slow`.) *Inputs* are the passes that were
compared. A *key* is an entry of the config that was changed alone: results change where PyTorch's do, or the key is
refused. How to prove more: [adding a family](adding_a_family.md)."""


def page() -> str:
    """The text of the page."""
    families = sorted(registry.FAMILIES.items())
    summary = [_summary(*entry) for entry in families]
    parts = [
        INTRODUCTION,
        _table(("family", "`model_type`", "source", "classes", "cases", "keys"), summary),
        *(part for entry in families for part in _family(*entry)),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(model_type: str, cls: type) -> tuple:
    keys = {key for entries in _effects(model_type).values() for key in entries}
    cases = len(reference.names(model_type))
    classes = sum(len(one.heads) for one in registry.backbones_of(model_type))
    return f"[{cls.class_prefix}](#{model_type})", f"`{model_type}`", cls.reference, classes, cases, len(keys)


def _family(model_type: str, cls: type) -> tuple[str, str, str]:
    records = [reference.load(name) for name in reference.names(model_type)]
    rows = []
    backbones = registry.backbones_of(model_type)
    for task, one in ((task, one) for task in registry.TASKS for one in backbones if task in one.heads):
        names = registry.class_names(one, task)
        own = [record for record in records if record["class"] in names]
        passes = sum(len(record["forward"]) for record in own)
        generations = sum(len(record.get(kind, ())) for record in own for kind in ("generation", "translation"))
        counts = (len(own), passes, generations or "") if own else ("transformers has no such class", "", "")
        spelled = ", ".join(f"`{name}`" for name in names)
        rows.append((spelled, f"`{registry.TASKS[task].auto_name}`", *counts))
    title = f"## {model_type}"
    return title, cls.__doc__.strip().splitlines()[0], _table(("class", "by", "cases", "inputs", "generations"), rows)


def _effects(model_type: str) -> dict:
    path = reference.FOLDER / model_type / "config_effects.json"
    return reference.load(f"{model_type}/config_effects") if path.is_file() else {}


def _table(header: tuple, rows: list[tuple]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

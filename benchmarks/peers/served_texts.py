"""The texts that are sent, the same for every peer. Needs nothing but the standard library."""

import json
from pathlib import Path

ONE_BY_ONE = 8
PROMPT_WORDS = 24


def requests(arguments) -> list[list[str]]:
    """The requests of one repeat: texts of mixed lengths, one by one or in a batch; or as many beginnings of texts."""
    texts = json.loads((Path(arguments.folder) / "texts.json").read_text())
    if arguments.task == "continue_texts":
        long = sorted(texts, key=len)[-arguments.batch :]
        return [[" ".join(text.split()[:PROMPT_WORDS]) for text in long]]
    if arguments.batch == 1:
        step = len(texts) // ONE_BY_ONE
        return [[text] for text in texts[::step]]
    return [texts[: arguments.batch]]

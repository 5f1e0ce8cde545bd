"""The description of a fast tokenizer (the content of tokenizer.json) and the refusal to translate a part of it."""

import json
from functools import lru_cache
from typing import Any

import tokenizers


def refuse(component: str) -> ValueError:
    """The error for a component that has no exact translation to TensorFlow operations."""
    return ValueError(f"This tokenizer cannot be expressed exactly in the graph: {component}.")


def require(description: dict, kind: str, accepted: dict[str, tuple]) -> None:
    """Refuses a component with an option outside the accepted values.

    Raises:
        ValueError: naming the component, the option and its value.
    """
    for option, values in accepted.items():
        if description.get(option) not in values:
            raise refuse(f"{kind} {description['type']} with {option}={description.get(option)!r}")


@lru_cache(maxsize=64)
def _rust(kind: str, description: str) -> Any:
    whole = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}, kind: json.loads(description)}
    return getattr(tokenizers.Tokenizer.from_str(json.dumps(whole)), kind)


def rust(kind: str, description: dict) -> Any:
    """The rust library's own object for one component; `kind` is "normalizer", "pre_tokenizer" or "decoder"."""
    return _rust(kind, json.dumps(description, sort_keys=True))

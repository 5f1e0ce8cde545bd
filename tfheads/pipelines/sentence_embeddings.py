"""Sentence embeddings: what a directory of sentence-transformers makes of the hidden values of tokens."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MODULES_FILE = "modules.json"

# A vector of the real tokens' hidden values [time, hidden], in the order in which several are put side by side.
POOLINGS = {
    "cls": lambda hidden: hidden[0],
    "max": lambda hidden: hidden.max(axis=0),
    "mean": lambda hidden: hidden.mean(axis=0),
    "mean_sqrt_len": lambda hidden: hidden.sum(axis=0) / np.sqrt(len(hidden)),
    "weightedmean": lambda hidden: np.average(hidden, axis=0, weights=np.arange(1, len(hidden) + 1)).astype("float32"),
    "lasttoken": lambda hidden: hidden[-1],
}
KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class SentenceModules:
    """How a text becomes a vector.

    Attributes:
        poolings: names in `POOLINGS`; the vectors are put side by side.
        normalize: whether the result has length 1.
        max_length: at most so many tokens of a text are read; None for the model's limit.
        lower_case: whether a text is made lower case before the tokenizer sees it.
    """

    poolings: tuple[str, ...]
    normalize: bool = False
    max_length: int | None = None
    lower_case: bool = False

    def vector(self, hidden: np.ndarray) -> np.ndarray:
        """The embedding `[width]` of the hidden values `[time, hidden]` of a text's real tokens."""
        vector = np.concatenate([POOLINGS[name](hidden) for name in self.poolings])
        return vector / max(float(np.linalg.norm(vector)), 1e-12) if self.normalize else vector


def read_modules(directory: str) -> SentenceModules | None:
    """What modules.json in a directory asks for; None if there is none.

    Raises:
        ValueError: it asks for something else than pooling and normalisation, or for files outside the directory.
    """
    root = Path(directory)
    if not (root / MODULES_FILE).is_file():
        return None
    poolings: tuple[str, ...] = ()
    found = {"normalize": False}
    for module in _modules(root):
        kind = str(module.get("type", "")).rpartition(".")[2]
        folder = _inside(root, module.get("path", ""))
        if kind == "Transformer":
            found.update(_reading(folder))
        elif kind == "Pooling" and not poolings:
            poolings = _poolings(folder / "config.json")
        elif kind == "Normalize" and poolings:
            found["normalize"] = True
        else:
            raise ValueError(f"{MODULES_FILE} must have a Transformer, a Pooling and perhaps a Normalize, got {kind!r}")
    if not poolings:
        raise ValueError(f"{MODULES_FILE} must have a Pooling, got none")
    _refuse_prompts(root)
    return SentenceModules(poolings, **found)


def _modules(root: Path) -> list[dict]:
    modules = _json(root / MODULES_FILE)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{root / MODULES_FILE} must be a list of modules")
    return modules


def _inside(root: Path, path) -> Path:
    """A folder of the directory.

    Raises:
        ValueError: it leaves the directory.
    """
    folder = root / path if isinstance(path, str) else None
    if folder is None or ".." in Path(path).parts or not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"the paths in {MODULES_FILE} must stay in its directory, got {path!r}")
    return folder


def _reading(folder: Path) -> dict:
    """How a text is read: sentence_bert_config.json, or the same for another family."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        values = _json(path)
        longest = values.get("max_seq_length")
        if longest is not None and (not isinstance(longest, int) or longest < 1):
            raise ValueError(f"max_seq_length in {path} must be a whole number from 1, got {longest!r}")
        return {"max_length": longest, "lower_case": bool(values.get("do_lower_case", False))}
    return {}


def _poolings(path: Path) -> tuple[str, ...]:
    """The names in `POOLINGS` that a Pooling's config.json asks for; it has a mode, or a key for each."""
    values = _json(path)
    asked = values.get("pooling_mode")
    if asked is None:
        known = [key for key in values if key.startswith("pooling_mode_") and values[key]]
        asked = [KEYS.get(key, key) for key in known]
    asked = asked.split("+") if isinstance(asked, str) else asked
    if not asked or not all(name in POOLINGS for name in asked):
        raise ValueError(f"{path} must ask for poolings of {', '.join(POOLINGS)}, got {asked!r}")
    return tuple(name for name in POOLINGS if name in asked)


def _refuse_prompts(root: Path) -> None:
    path = root / "config_sentence_transformers.json"
    name = _json(path).get("default_prompt_name") if path.is_file() else None
    if name is not None:
        raise ValueError(f"{path} must have no default prompt, got {name!r}: put the prompt in front of the texts")


def _json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{MODULES_FILE} names {path}, which is missing") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None

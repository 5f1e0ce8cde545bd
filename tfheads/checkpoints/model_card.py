"""Model cards: the README.md of a checkpoint, with the front matter from which the Hub makes its page."""

import json
import math
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import transformers
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from tfheads.registry import TASKS

CARD_FILE = "README.md"
MARK = (
    "<!-- This card was written by tfheads and is replaced by the next save. Remove this line to keep your changes. -->"
)
LIBRARIES = ("tfheads", "tensorflow", "keras", "transformers", "tokenizers", "datasets")
PIPELINES = {
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
    "seq2seq-lm": "text2text-generation",
    "image-classification": "image-classification",
    "audio-classification": "audio-classification",
    "ctc": "automatic-speech-recognition",
    "speech-seq2seq": "automatic-speech-recognition",
    "base": "feature-extraction",
    "text-classification": "text-classification",
    "document-classification": "text-classification",
    "conditional-generation": "text2text-generation",
}
TITLES = {
    "causal-lm": "causal language modelling (predict the next token)",
    "masked-lm": "masked language modelling (predict the tokens that were masked)",
    "base": "hidden states for each token",
    "seq2seq-lm": "text to text",
}
# What a pipeline is called with in the example of a card.
EXAMPLES = {
    "text-generation": '"Once upon a time", max_new_tokens=30',
    "fill-mask": 'f"The capital of France is {pipeline.tokenizer.mask_token}."',
    "text2text-generation": '"It rained all day, and in the evening the river rose."',
    "text-classification": '"I liked it from the first page to the last."',
    "token-classification": '"Ada Lovelace was born in London."',
    "question-answering": 'question="Where was she born?", context="Ada Lovelace was born in London."',
}
# No pipeline cuts texts into windows, or puts a source and a target into one sequence.
WITHOUT_PIPELINE = ("document-classification", "conditional-generation")
# Shown by their usual names; a metric that is not here is shown as it is called.
METRIC_NAMES = {
    "loss": "Loss",
    "perplexity": "Perplexity",
    "accuracy": "Accuracy",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearmanr": "Spearman correlation",
    "mse": "Mean squared error",
    "combined_score": "Combined score",
    "exact_match": "Exact match",
}
DATA_SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst")


def model_card(
    model_name: str,
    *,
    task: str,
    architecture: str | None = None,
    parameters: int | None = None,
    base_model: str | None = None,
    dataset: str | Sequence[str] | None = None,
    dataset_config: str | None = None,
    dataset_split: str | None = None,
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None = None,
    hyperparameters: Mapping[str, object] | None = None,
    description: str | None = None,
) -> str:
    """The text of a README.md for a checkpoint, front matter included.

    Arguments:
        model_name: id of the repository, or the name of the directory.
        task: task as tfheads calls it, such as "causal-lm".
        architecture: name of the class, such as "GPT2LMHeadModel".
        parameters: how many numbers were trained.
        base_model: what the training began with: an id of the Hub, or a local path, which the card does not reveal;
            None means that it began from random weights or that it is not known.
        dataset: id or ids of training data on the Hub, or names of files.
        dataset_config: name of the dataset's configuration.
        dataset_split: the split that `metrics` were computed on.
        language: language code or codes ("en").
        license: identifier of a licence as the Hub lists them ("apache-2.0").
        tags: further tags.
        metrics: results on the evaluation data, by name.
        history: what was measured in each epoch: `History.history` of Keras, or one mapping for each epoch.
        hyperparameters: what the training was done with, by name.
        description: a paragraph on what the model is for.

    Returns:
        Markdown with a mark by which `write_model_card` knows that it may replace it.
    """
    datasets = [dataset] if isinstance(dataset, str) else list(dataset or ())
    finite = {name: value for name, value in (metrics or {}).items() if _is_finite(value)}
    front = ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINES.get(task),
        tags=["tfheads", "keras", "tensorflow", *tags],
        base_model=base_model if base_model and is_hub_id(base_model) else None,
        datasets=[name for name in datasets if is_hub_id(name)] or None,
        language=language,
        license=license,
        metrics=[_plain_name(name) for name in finite if "loss" not in name] or None,
        model_name=model_name,
        eval_results=_eval_results(task, datasets, dataset_config, dataset_split, finite) or None,
    )
    if front.eval_results is None:
        # huggingface_hub writes the name only as a part of the results.
        front.pop("model_name")
    trained = datasets or metrics or history or hyperparameters
    sections = [
        f"# {model_name.rsplit('/', 1)[-1]}",
        _introduction(task, architecture, parameters, base_model, datasets, description, bool(trained)),
        _results(metrics),
        _how_to_use(model_name, task, architecture),
        _training_data(datasets, dataset_config),
        _hyperparameters(hyperparameters),
        _history(history),
        _versions(),
    ]
    return f"---\n{front.to_yaml()}\n---\n\n{MARK}\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def write_model_card(model, staging: str | Path, target: str | Path, card: str | None = None) -> bool:
    """Writes the README.md of a save, unless that would replace one by another hand.

    Arguments:
        model: the model that is saved, with `config` and `task`.
        staging: the directory that is being written.
        target: the directory whose files it will replace, where an older README.md may be.
        card: the text; None makes a short one. A text without the mark of `model_card` is the user's own and is written
            in any case.

    Returns:
        Whether a card was written.
    """
    if card is None:
        card = card_of(model, Path(target).resolve().name)
    old = Path(target, CARD_FILE)
    if is_generated(card) and old.is_file() and not is_generated(old.read_text(encoding="utf-8", errors="replace")):
        return False
    Path(staging, CARD_FILE).write_text(card, encoding="utf-8")
    return True


def card_of(model, model_name: str, **details) -> str:
    """A card with what a model itself tells; `details` are further arguments of `model_card`, which win."""
    base_model = getattr(model.config, "_name_or_path", None) or None
    known = {
        "task": getattr(model, "task", "base"),
        "architecture": type(model).__name__,
        "parameters": model.count_params(),
        "base_model": base_model if base_model != model_name else None,
    }
    return model_card(model_name, **(known | details))


def is_generated(card: str) -> bool:
    """Whether a card was written by this module and may be replaced."""
    return MARK in card


def is_hub_id(name: str) -> bool:
    """Whether a name is an id of the Hub rather than a local path."""
    if name.lower().endswith(DATA_SUFFIXES) or Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _eval_results(
    task: str, datasets: Sequence[str], config: str | None, split: str | None, metrics: Mapping[str, float]
) -> list[EvalResult]:
    if not datasets or task not in PIPELINES:
        return []
    name = _shown_data(datasets[0])
    return [
        EvalResult(
            task_type=PIPELINES[task],
            dataset_type=datasets[0] if is_hub_id(datasets[0]) else "text",
            dataset_name=name,
            dataset_config=config,
            dataset_split=split,
            metric_type=_plain_name(metric),
            metric_name=_shown_metric(metric),
            metric_value=float(value),
        )
        for metric, value in metrics.items()
    ]


def _introduction(task, architecture, parameters, base_model, datasets, description, trained) -> str:
    what = f"`{architecture}`" if architecture else "model"
    size = f" with {parameters:,} parameters" if parameters else ""
    made = "trained" if trained else "saved"
    text = f"A {what}{size} for {TITLES.get(task, task.replace('-', ' '))}, {made} with tfheads (Keras on TensorFlow)."
    if base_model:
        source = (
            f"[{base_model}](https://huggingface.co/{base_model})" if is_hub_id(base_model) else "a local checkpoint"
        )
        text += f" It starts from {source}."
    if datasets:
        text += f" It was trained on {', '.join(map(_linked_data, datasets))}."
    return f"{text}\n\n{description.strip()}" if description else text


def _results(metrics: Mapping[str, float] | None) -> str | None:
    if not metrics:
        return None
    lines = [f"- {_shown_metric(name)}: {_number(value)}" for name, value in metrics.items()]
    return "It achieves these results on the evaluation data:\n\n" + "\n".join(lines)


def _plain_name(metric: str) -> str:
    return metric.removeprefix("eval_").removeprefix("val_")


def _shown_metric(metric: str) -> str:
    return METRIC_NAMES.get(_plain_name(metric), metric)


def _how_to_use(model_name: str, task: str, architecture: str | None) -> str:
    name = json.dumps(model_name)
    lines = ["## How to use", "", "With TensorFlow:", "", "```python", "import tfheads", ""]
    example = EXAMPLES.get(PIPELINES.get(task))
    if example and task not in WITHOUT_PIPELINE:
        lines += [f'pipeline = tfheads.pipeline("{PIPELINES[task]}", model={name})', f"print(pipeline({example}))", ""]
    auto = TASKS[task].auto_name if task in TASKS else "AutoModel"
    lines += [f"model = tfheads.{auto}.from_pretrained({name})", "```"]
    theirs = next((one for one in (auto, architecture) if one and hasattr(transformers, one)), None)
    if theirs:
        lines += ["", "With PyTorch:", "", "```python", f"from transformers import {theirs}, AutoTokenizer", ""]
        lines += [f"tokenizer = AutoTokenizer.from_pretrained({name})"]
        lines += [f"model = {theirs}.from_pretrained({name})", "```"]
    return "\n".join(lines)


def _training_data(datasets: Sequence[str], config: str | None) -> str | None:
    if not datasets:
        return None
    lines = [f"- {_linked_data(name)}" for name in datasets]
    if config:
        lines[0] += f" (configuration `{config}`)"
    return "## Training data\n\n" + "\n".join(lines)


def _hyperparameters(values: Mapping[str, object] | None) -> str | None:
    if not values:
        return None
    return "## Hyperparameters\n\n" + "\n".join(f"- {name}: {_cell(value)}" for name, value in values.items())


def _history(history) -> str | None:
    rows = _rows(history)
    if not rows:
        return None
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "epoch"))
    lines = ["| epoch | " + " | ".join(map(_cell, columns)) + " |", "|---:" * (len(columns) + 1) + "|"]
    for number, row in enumerate(rows, start=1):
        cells = [_cell(row.get("epoch", number)), *(_cell(row.get(name, "")) for name in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "## Training results\n\n" + "\n".join(lines)


def _rows(history) -> list[dict]:
    if not history:
        return []
    if not isinstance(history, Mapping):
        return [dict(row) for row in history]
    length = max((len(values) for values in history.values()), default=0)
    return [{name: values[i] for name, values in history.items() if i < len(values)} for i in range(length)]


def _versions() -> str:
    lines = [f"- Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Used from its source directory, tfheads is not installed.
            version = getattr(sys.modules.get(name), "__version__", None)
        if version:
            lines.append(f"- {name} {version}")
    return "## Framework versions\n\n" + "\n".join(lines)


def _linked_data(name: str) -> str:
    return f"[{name}](https://huggingface.co/datasets/{name})" if is_hub_id(name) else f"`{_shown_data(name)}`"


def _shown_data(name: str) -> str:
    """Folders of the machine stay out of the card."""
    return name if is_hub_id(name) else Path(name).name


def _is_finite(value: object) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _number(value: object) -> str:
    if isinstance(value, bool | str | int) or value is None:
        return str(value)
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError):
        return str(value)


def _cell(value: object) -> str:
    return re.sub(r"\s+", " ", _number(value)).replace("|", "\\|")

"""Pipelines: strings in, dictionaries out, one file for each task."""

import difflib
import os

import transformers

from tfheads import registry
from tfheads.checkpoints import hub
from tfheads.checkpoints.loading import listed
from tfheads.checkpoints.pretrained import read_config
from tfheads.checkpoints.tokenizers import load_tokenizer
from tfheads.models import TaskModel
from tfheads.pipelines.base import Pipeline
from tfheads.pipelines.feature_extraction import FeatureExtractionPipeline
from tfheads.pipelines.fill_mask import FillMaskPipeline
from tfheads.pipelines.multiple_choice import MultipleChoicePipeline
from tfheads.pipelines.next_sentence import NextSentencePipeline
from tfheads.pipelines.question_answering import QuestionAnsweringPipeline
from tfheads.pipelines.summarization import SummarizationPipeline
from tfheads.pipelines.text_classification import TextClassificationPipeline
from tfheads.pipelines.text_generation import TextGenerationPipeline
from tfheads.pipelines.text_to_text_generation import TextToTextGenerationPipeline
from tfheads.pipelines.token_classification import TokenClassificationPipeline
from tfheads.pipelines.translation import TranslationPipeline, languages_of
from tfheads.pipelines.zero_shot_classification import ZeroShotClassificationPipeline

# Of several for one kind of model the first is the one that a model stands for.
PIPELINES: dict[str, type[Pipeline]] = {
    cls.task: cls
    for cls in (
        TextGenerationPipeline,
        FillMaskPipeline,
        TextClassificationPipeline,
        ZeroShotClassificationPipeline,
        MultipleChoicePipeline,
        NextSentencePipeline,
        FeatureExtractionPipeline,
        QuestionAnsweringPipeline,
        TokenClassificationPipeline,
        TextToTextGenerationPipeline,
        SummarizationPipeline,
        TranslationPipeline,
    )
}
KNOWN = (*PIPELINES, "translation_xx_to_yy")
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


def pipeline(
    task: str | None = None,
    model: "str | TaskModel | None" = None,
    tokenizer: "str | transformers.PreTrainedTokenizerBase | None" = None,
    *,
    batch_size: int = 8,
    dtype=None,
    revision: str | None = None,
    token: "str | bool | None" = None,
    model_kwargs: dict | None = None,
    **options,
) -> Pipeline:
    """A model with its tokenizer, ready to be called with strings; as in transformers.

    Args:
        task: a name in `PIPELINES` or `ALIASES`, such as "text-classification", or "translation_xx_to_yy" with two
            languages; None takes that of the model or of the class that config.json names.
        model: a directory, the id of a repository on the Hub, or a model of tfheads.
        tokenizer: likewise; None takes the one beside the model.
        batch_size: how many strings go through the model at once.
        dtype: a Keras dtype policy for a model that is loaded.
        revision, token: as in `from_pretrained`.
        model_kwargs: more arguments of `from_pretrained`.
        options: defaults for the options of each call, such as `top_k` or `max_new_tokens`.

    Raises:
        ValueError: an unknown task or option, no model, a model of another task or without a head for it, no tokenizer.
        TypeError: the model is neither a name nor a model of tfheads.
        FileNotFoundError: there is no such checkpoint, or no tokenizer beside it.
    """
    if model is None:
        raise ValueError("model is needed: a directory, the id of a repository on the Hub, or a model of tfheads")
    if not isinstance(model, (str, os.PathLike, TaskModel)):
        raise TypeError(f"model must be a directory, an id or a model of tfheads, got {type(model).__name__}")
    source = {"revision": revision, "token": token}
    languages = languages_of(task) if isinstance(task, str) else None
    if languages is not None:
        task, options = "translation", {**languages, **options}
    cls = PIPELINES[_checked(task) if task is not None else _task_of(model, source)]
    place = (getattr(model.config, "_name_or_path", "") or None) if isinstance(model, TaskModel) else str(model)
    loads = not isinstance(model, TaskModel)
    if loads:
        model = _loaded(cls, place, dtype=dtype, **source, **(model_kwargs or {}))
    tokenizer = place if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ValueError("tokenizer is needed with a model that was not loaded from a checkpoint")
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        tokenizer = load_tokenizer(tokenizer, **source)
    files = cls.files(place, **source) if loads or (place and os.path.isdir(place)) else {}
    return cls(model, tokenizer, batch_size=batch_size, **files, **options)


def _loaded(cls: type[Pipeline], place: str, **options) -> TaskModel:
    model = registry.TASKS[cls.model_task].from_pretrained(place, **options)
    if model.new_weights and cls.needs_head:
        raise ValueError(
            f"model must have a trained head for {cls.task!r}, {place} lacks {listed(list(model.new_weights))}"
        )
    return model


def _checked(task: str) -> str:
    task = ALIASES.get(task, task)
    if task not in PIPELINES:
        near = difflib.get_close_matches(str(task), [*KNOWN, *ALIASES], n=1, cutoff=0.0)[0]
        raise ValueError(f"task {task!r} is not known, the nearest is {near!r}; known are {', '.join(KNOWN)}")
    return task


def _task_of(model, source: dict) -> str:
    """The pipeline that fits a model, or the class that a checkpoint was saved from."""
    if isinstance(model, TaskModel):
        name, model_task = type(model).__name__, model.task
    else:
        architectures = read_config(hub.resolve(model, weights=False, **source)).architectures or [None]
        found = registry.find(architectures[0]) if architectures[0] else None
        name, model_task = architectures[0], getattr(found, "task", None)
    for task, cls in PIPELINES.items():
        if cls.model_task == model_task:
            return task
    raise ValueError(f"task is needed: there is no pipeline for {name}; known are {', '.join(KNOWN)}")

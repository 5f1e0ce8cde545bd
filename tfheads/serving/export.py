"""From a model and a tokenizer to a version directory of TensorFlow Serving."""

import difflib
import os
from pathlib import Path

from tfheads.checkpoints.tokenizers import load_tokenizer
from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer, graph_tokenizer, verify
from tfheads.serving.bundle_files import write_beside, write_version
from tfheads.serving.causal_lm import CausalLMBundle
from tfheads.serving.conditional_generation import ConditionalGenerationBundle
from tfheads.serving.document_classification import DocumentClassificationBundle
from tfheads.serving.embeddings import EmbeddingBundle
from tfheads.serving.large_tables import tables_as_variables
from tfheads.serving.masked_lm import MaskedLMBundle
from tfheads.serving.multiple_choice import MultipleChoiceBundle
from tfheads.serving.next_sentence import NextSentenceBundle
from tfheads.serving.question_answering import QuestionAnsweringBundle
from tfheads.serving.seq2seq_lm import Seq2SeqLMBundle
from tfheads.serving.text_classification import TextClassificationBundle
from tfheads.serving.token_classification import TokenClassificationBundle
from tfheads.serving.token_level import Bundle
from tfheads.serving.versions import check_version, new_version

# By the task of the model; those of sounds and images belong here too.
BUNDLES: dict[str, type[Bundle]] = {
    "base": EmbeddingBundle,
    "causal-lm": CausalLMBundle,
    "conditional-generation": ConditionalGenerationBundle,
    "document-classification": DocumentClassificationBundle,
    "masked-lm": MaskedLMBundle,
    "multiple-choice": MultipleChoiceBundle,
    "next-sentence-prediction": NextSentenceBundle,
    "question-answering": QuestionAnsweringBundle,
    "seq2seq-lm": Seq2SeqLMBundle,
    "sequence-classification": TextClassificationBundle,
    "text-classification": TextClassificationBundle,
    "text-encoding": EmbeddingBundle,
    "token-classification": TokenClassificationBundle,
}
COMMON_OPTIONS = ("jit_compile",)


def export(model: TaskModel, directory, tokenizer, version: int, overwrite: bool, options: dict) -> str:
    """Writes one version; see `Served.export_serving`."""
    check_version(directory, version, overwrite)
    if tokenizer is None:
        given = next((name for name in options if name not in COMMON_OPTIONS), None)
        if given is not None:
            raise ValueError(f"{given} must not be given without a tokenizer: token_level has no options")
        bundle = Bundle(model, options)
    else:
        cls = _bundle_class(model)
        _check_options(cls, options)
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = load_tokenizer(tokenizer)
        bundle = cls(model, _in_graph(model, tokenizer, cls.compares_offsets), tokenizer, options)
        tables_as_variables(bundle)
    with new_version(directory, version, overwrite) as staging:
        files = write_version(staging, Path(directory), bundle, tokenizer)
    write_beside(Path(directory), files)
    return os.path.join(directory, str(version))


def _bundle_class(model: TaskModel) -> type[Bundle]:
    if model.task not in BUNDLES:
        raise ValueError(
            f"tokenizer must be None for {type(model).__name__}: text signatures exist for {', '.join(BUNDLES)}"
        )
    return BUNDLES[model.task]


def _check_options(cls: type[Bundle], options: dict) -> None:
    known = (*cls.option_names, *COMMON_OPTIONS)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"export_serving has no option {name!r} for this model, the nearest is {near!r}")


def _in_graph(model: TaskModel, tokenizer, offsets: bool) -> GraphTokenizer:
    try:
        graph = graph_tokenizer(tokenizer, check=False)
        last = graph.vocabulary_size - 1
        if last >= model.vocab_size:
            raise ValueError(f"tokenizer has ids up to {last}, the model's vocabulary ends at {model.vocab_size - 1}")
        verify(tokenizer, graph, offsets)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{reason}; tokenizer=None exports the token-level signature alone") from error
    return graph

"""BERT's pre-training: masked tokens, and whether two sentences follow each other."""

import dataclasses

import keras
import numpy as np
from tqdm import tqdm

from tfheads.data.batching import PaddedRows
from tfheads.data.masking import TokenMasking
from tfheads.data.sentence_pairs import LABEL, sentence_pairs
from tfheads.data.tokenizing import resolve_block_size
from tfheads.models import ForPreTraining, TaskModel
from tfheads.recipes.arguments import CorpusArguments, ModelArguments, TrainingArguments
from tfheads.recipes.command_line import argument
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.language_modelling import corpus, corpus_run
from tfheads.recipes.models import load_model, load_tokenizer
from tfheads.recipes.training import TrainingRun, check_output_dir

USUAL_LENGTH = 512


@dataclasses.dataclass(kw_only=True)
class SentencePairArguments:
    """How documents become masked pairs of sentences."""

    max_seq_length: int | None = argument(
        None, "tokens of a row; default: what the model has positions for, at most 512", at_least=5
    )
    mlm_probability: float = argument(0.15, "part of the tokens to predict", above=0, below=1)
    short_seq_probability: float = argument(
        0.1, "part of the rows that aims at fewer tokens, any number", at_least=0, at_most=1
    )


@dataclasses.dataclass(kw_only=True)
class PreTrainingArguments(SentencePairArguments, TrainingArguments, CorpusArguments, ModelArguments):
    """Trains a model on masked tokens and on which sentences follow each other, as BERT was, on documents."""

    def __post_init__(self):
        super().__post_init__()
        if self.streaming:
            raise ValueError("streaming must be false: sentences are drawn from all documents")


class PreTrainingEvaluation:
    """Both losses, and how often the model knows whether a sentence follows.

    Args:
        source: the evaluation data.
        batch_size: rows of a batch.
        masking: which tokens are hidden, the same ones each time.
    """

    def __init__(self, source: PaddedRows, batch_size: int, masking: TokenMasking):
        self.batches = source.batches(batch_size, shuffle=False, drop_remainder=False, masking=masking)
        self.rows = source.rows

    def __call__(self, model: TaskModel) -> dict[str, float]:
        """`loss` and its two parts `mlm_loss` and `nsp_loss`, and `nsp_accuracy`."""
        totals, right = np.zeros((2, 2)), 0
        of_tokens, of_pairs = model.criteria
        for batch in tqdm(self.batches, desc="Evaluation", delay=3, leave=False):
            inputs, labels = model.without_labels(batch)
            output = model.predict_on_batch(inputs)
            for row, one in enumerate((of_tokens, of_pairs)):
                totals[row] += float(one.total(output, labels)), float(one.count(labels, inputs))
            right += int(np.sum(output[of_pairs.logits].argmax(-1) == labels[of_pairs.labels].numpy()))
        mlm, nsp = np.divide(totals[:, 0], totals[:, 1], out=np.zeros(2), where=totals[:, 1] > 0).tolist()
        return {"loss": mlm + nsp, "mlm_loss": mlm, "nsp_loss": nsp, "nsp_accuracy": right / self.rows}


def run_pre_training(arguments: PreTrainingArguments) -> dict[str, float]:
    """Trains and evaluates; returns what all_results.json holds."""
    return run_on_devices(pre_training, arguments)


def pre_training(arguments: PreTrainingArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_tokenizer(arguments)
    texts = corpus(arguments)
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    model = load_model(arguments, tokenizer, ForPreTraining)
    _check_labels(model)
    length = resolve_block_size(arguments.max_seq_length, tokenizer, model.backbone.length_limit)
    length = length if arguments.max_seq_length is not None else min(length, USUAL_LENGTH)
    masking = TokenMasking.from_tokenizer(tokenizer, probability=arguments.mlm_probability, seed=arguments.order_seed)

    def rows(text) -> PaddedRows:
        options = {"short_probability": arguments.short_seq_probability, "seed": arguments.order_seed}
        pairs = sentence_pairs(text["text"], tokenizer, length, **options)
        return PaddedRows(pairs, tokenizer, model.accepted_inputs, buckets=[length])

    return corpus_run(arguments, model, tokenizer, texts, rows, _evaluation, masking)


def _evaluation(arguments, source: PaddedRows, masking: TokenMasking) -> PreTrainingEvaluation:
    return PreTrainingEvaluation(source, arguments.rows_per_evaluation_step, masking)


def _check_labels(model: TaskModel) -> None:
    """Some families have other labels than whether a sentence follows."""
    names = [criterion.labels for criterion in model.criteria]
    if names != ["labels", LABEL]:
        raise ValueError(
            f"model_type must be one that is trained on masks and next sentences, such as bert, "
            f"got {model.config.model_type!r}, which is trained on {', '.join(names)}"
        )

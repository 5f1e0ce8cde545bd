"""Causal and masked language modelling: from arguments to a training run."""

from collections.abc import Callable, Mapping

import datasets
import keras

from tfheads.data.labelled_text import DOUBLING_LENGTHS
from tfheads.data.language_modeling import causal_blocks, masked_blocks
from tfheads.data.masking import TokenMasking
from tfheads.data.pipeline import BatchSource, StreamedBlocks
from tfheads.data.sources import load_text
from tfheads.models import ForCausalLM, ForMaskedLM, TaskModel
from tfheads.recipes.arguments import (
    CausalLanguageModellingArguments,
    MaskedLanguageModellingArguments,
    TrainingArguments,
)
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.evaluation import LossEvaluation
from tfheads.recipes.models import load_model, load_tokenizer
from tfheads.recipes.training import TrainingRun, check_output_dir, training_batches, updates_per_epoch

Source = BatchSource | StreamedBlocks


def run_causal_language_modelling(arguments: CausalLanguageModellingArguments) -> dict[str, float]:
    """Trains and evaluates a model that predicts the next token; returns what all_results.json holds."""
    return run_on_devices(causal_language_modelling, arguments)


def run_masked_language_modelling(arguments: MaskedLanguageModellingArguments) -> dict[str, float]:
    """Trains and evaluates a model that fills masked tokens; returns what all_results.json holds."""
    return run_on_devices(masked_language_modelling, arguments)


def causal_language_modelling(arguments: CausalLanguageModellingArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """

    def rows(texts, tokenizer, model) -> Source:
        return causal_blocks(
            texts,
            tokenizer,
            arguments.block_size,
            packing="documents" if arguments.keep_documents_apart else "concatenate",
            append_end_of_text=arguments.append_end_of_text,
            maximum=model.backbone.length_limit,
            num_proc=arguments.preprocessing_num_workers,
        )

    return _prepared(arguments, ForCausalLM, rows)


def masked_language_modelling(arguments: MaskedLanguageModellingArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """

    def rows(texts, tokenizer, model) -> Source:
        return masked_blocks(
            texts,
            tokenizer,
            arguments.max_seq_length,
            line_by_line=arguments.line_by_line,
            bucket_lengths=() if arguments.pad_to_max_length else DOUBLING_LENGTHS,
            whole_word=arguments.whole_word_mask,
            maximum=model.backbone.length_limit,
            num_proc=arguments.preprocessing_num_workers,
        )

    def masking(tokenizer) -> TokenMasking:
        return TokenMasking.from_tokenizer(
            tokenizer,
            probability=arguments.mlm_probability,
            whole_word=arguments.whole_word_mask,
            seed=arguments.order_seed,
        )

    return _prepared(arguments, ForMaskedLM, rows, masking)


def _prepared(
    arguments: TrainingArguments,
    task: type[TaskModel],
    rows: Callable[..., Source],
    masking: Callable[..., TokenMasking] | None = None,
) -> TrainingRun:
    """Loads text, tokenizer and model in the order in which mistakes are cheapest to find."""
    check_output_dir(arguments)
    tokenizer = load_tokenizer(arguments)
    texts = corpus(arguments)
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    model = load_model(arguments, tokenizer, task)
    masking = None if masking is None else masking(tokenizer)
    return corpus_run(
        arguments, model, tokenizer, texts, lambda text: rows(text, tokenizer, model), _evaluation, masking
    )


def corpus_run(
    arguments: TrainingArguments,
    model: TaskModel,
    tokenizer,
    texts: Mapping[str, datasets.Dataset | datasets.IterableDataset],
    rows: Callable[..., Source],
    evaluation_of: Callable[..., object],
    masking: TokenMasking | None = None,
) -> TrainingRun:
    """The run of a model on a corpus.

    Args:
        arguments, model, tokenizer: of the run.
        texts: what `corpus` gives.
        rows: from a split's text to its rows.
        evaluation_of: from the arguments, the rows of the validation split and `masking` to the evaluation.
        masking: which tokens are hidden, if any are.

    Raises:
        ValueError: text of which no rows can be made; names the split.
    """
    sources = {}
    for split in sorted(texts, reverse=True):  # validation first: it is short
        try:
            sources[split] = rows(texts[split])
        except ValueError as error:
            raise ValueError(f"{split}: {error}") from error
    train, evaluation = sources.get("train"), sources.get("validation")
    return TrainingRun(
        arguments=arguments,
        model=model,
        tokenizer=tokenizer,
        batches=None if train is None else training_batches(arguments, train, masking),
        updates_per_epoch=1 if train is None else updates_per_epoch(arguments, train),
        evaluation=None if evaluation is None else evaluation_of(arguments, evaluation, masking),
        train_rows=getattr(train, "rows", 0),
        dataset=[arguments.dataset_name] if arguments.dataset_name else list(arguments.train_file or ()),
    )


def corpus(arguments: TrainingArguments) -> dict[str, datasets.Dataset | datasets.IterableDataset]:
    """The text to train and to evaluate on, only what the run needs.

    Raises:
        ValueError: there is nothing to train or to evaluate on.
    """
    texts = load_text(
        arguments.dataset_name,
        arguments.dataset_config_name,
        train_file=arguments.train_file,
        validation_file=arguments.validation_file,
        validation_split_percentage=arguments.validation_split_percentage,
        text_column=arguments.text_column,
        keep_linebreaks=arguments.keep_linebreaks,
        streaming=arguments.streaming,
        num_proc=arguments.preprocessing_num_workers,
        cache_dir=arguments.cache_dir,
        token=arguments.token,
    )
    needed = {"train": arguments.do_train, "validation": arguments.evaluates}
    for split, is_needed in needed.items():
        if is_needed and split not in texts:
            files = "train_file" if split == "train" else "validation_file"
            wanted = f"a dataset with a split {split}" if arguments.dataset_name else files
            part = "" if split == "train" else ", or validation_split_percentage above 0"
            raise ValueError(f"there is no {split} text: give {wanted}{part}")
    limits = {"train": arguments.max_train_samples, "validation": arguments.max_eval_samples}
    return {split: _first(texts[split], limits[split]) for split, is_needed in needed.items() if is_needed}


def _first(texts, limit: int | None):
    """The first `limit` rows."""
    if limit is None:
        return texts
    return (
        texts.take(limit)
        if isinstance(texts, datasets.IterableDataset)
        else texts.select(range(min(limit, len(texts))))
    )


def _evaluation(arguments, source: Source, masking) -> LossEvaluation:
    size = arguments.rows_per_evaluation_step
    batches = source.batches(size, shuffle=False, drop_remainder=False, masking=masking)
    return LossEvaluation(batches, getattr(source, "rows", 0))

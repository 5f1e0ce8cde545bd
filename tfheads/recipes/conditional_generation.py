"""Texts that are written from other texts: summaries, translations, answers; by decoders and by encoder-decoders."""

import dataclasses

import keras
import numpy as np
from tqdm import tqdm

from tfheads.data.source_target import SourceTargetRows, source_target_columns, source_target_rows
from tfheads.models import ForSeq2SeqLM, TaskModel
from tfheads.recipes.arguments import FineTuningArguments
from tfheads.recipes.command_line import argument
from tfheads.recipes.evaluation import LossEvaluation
from tfheads.recipes.fine_tuning import (
    TEST,
    TRAIN,
    VALIDATION,
    checkpoint_config,
    fine_tuning_run,
    head_config,
    labelled_splits,
    load_padding_tokenizer,
    write_predictions,
)
from tfheads.recipes.models import load_model, new_config
from tfheads.recipes.training import TrainingRun, check_output_dir
from tfheads.registry import family_of
from tfheads.tasks.conditional_generation import ForConditionalGeneration

USUAL_SOURCE_LENGTH = 1024


@dataclasses.dataclass(kw_only=True)
class SourceTargetArguments:
    """Which columns, how long, and how targets are written when the model is measured."""

    text_column: str | None = argument(
        None, "column with the source; default: source, or the first text", also=["source_column"]
    )
    summary_column: str | None = argument(
        None, "column with the target; default: target, or the second text", also=["target_column"]
    )
    source_prefix: str = argument("", "put before each source, such as 'summarize: '")
    max_source_length: int | None = argument(
        None, "tokens of a source; default: what the targets leave of the model's positions, at most 1024", at_least=1
    )
    max_target_length: int = argument(128, "tokens of a target", at_least=1)
    val_max_target_length: int | None = argument(
        None, "tokens of a target that is written; default: max_target_length", at_least=1
    )
    predict_with_generate: bool = argument(False, "whether evaluation writes the targets and compares them")
    num_beams: int = argument(1, "beams with which targets are written", at_least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.max_seq_length is not None:
            raise ValueError("max_seq_length must not be given: give max_source_length and max_target_length")


@dataclasses.dataclass(kw_only=True)
class ConditionalGenerationArguments(SourceTargetArguments, FineTuningArguments):
    """Trains a model to write a text from another one: a summary, a translation, an answer."""


class WritingEvaluation(LossEvaluation):
    """The loss, and how the targets that the model writes compare with the right ones.

    Args:
        source: the evaluation data.
        writer: see `Writer`.
        targets: the right texts.
    """

    def __init__(self, source: SourceTargetRows, batch_size: int, writer: "Writer", targets: list[str]):
        super().__init__(source.batches(batch_size, shuffle=False, drop_remainder=False), source.rows)
        self.source, self.writer, self.targets = source, writer, targets

    def __call__(self, model: TaskModel) -> dict[str, float]:
        """The loss, `exact_match` (part of the rows) and `gen_len` (tokens of a written target, the mean)."""
        texts, lengths = self.writer(model, self.source)
        same = [text.split() == target.split() for text, target in zip(texts, self.targets, strict=True)]
        measures = {"exact_match": float(np.mean(same)), "gen_len": float(np.mean(lengths))}
        return {**super().__call__(model), **measures}


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes the targets of all sources.

    Attributes:
        tokenizer: of the model.
        batch_size: sources that are read at a time.
        options: of `generate`.
    """

    tokenizer: object
    batch_size: int
    options: dict

    def __call__(self, model: TaskModel, source: SourceTargetRows) -> tuple[list[str], list[int]]:
        """Texts, and how many tokens each has, in the order of the data."""
        rows, order = [[] for _ in range(source.rows)], iter(source.row_order(self.batch_size))
        batches = source.batches(self.batch_size, shuffle=False, drop_remainder=False)
        for batch in tqdm(batches, desc="Writing", delay=3, leave=False):
            inputs, _ = model.without_labels(batch)
            inputs = {name: value.numpy() for name, value in inputs.items()}
            for tokens in model.new_tokens(inputs, **self.options):
                rows[next(order)] = tokens.tolist()
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in texts], list(map(len, rows))


def run_conditional_generation(arguments: ConditionalGenerationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return conditional_generation(arguments).run()


def conditional_generation(arguments: ConditionalGenerationArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments)
    splits = labelled_splits(arguments)
    given = arguments.text_column, arguments.summary_column
    columns = {split: source_target_columns(rows, *given, split != TEST) for split, rows in splits.items()}
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    model = load_model(arguments, tokenizer, _model_class(arguments, tokenizer), **head_config(arguments, tokenizer))
    lengths = {"max_source_length": _source_length(arguments, model), "max_target_length": arguments.max_target_length}
    sources = {
        split: source_target_rows(
            splits[split],
            tokenizer,
            columns[split][0],
            None if split == TEST else columns[split][1],
            prefix=arguments.source_prefix,
            split=split,
            input_names=("input_ids", "attention_mask"),
            buckets=arguments.bucket_lengths,
            pad_to_max_length=arguments.pad_to_max_length,
            **lengths,
        )
        for split in sorted(splits, reverse=True)
    }
    options = {"max_new_tokens": arguments.val_max_target_length or arguments.max_target_length}
    options["num_beams"] = arguments.num_beams
    writer = Writer(tokenizer, arguments.per_device_eval_batch_size, options)
    right = splits[VALIDATION][columns[VALIDATION][1]][:] if VALIDATION in splits else []
    return fine_tuning_run(
        arguments,
        model,
        tokenizer,
        train=sources.get(TRAIN),
        evaluation=_evaluation(arguments, sources, writer, right),
        prediction=_prediction(arguments, sources, writer),
    )


def _model_class(arguments, tokenizer) -> type[TaskModel]:
    """Encoder-decoders read the source by themselves, decoders in one sequence with the target."""
    config = checkpoint_config(arguments) or new_config(arguments, tokenizer)
    is_decoder = ForConditionalGeneration.task in family_of(config.model_type).heads
    return ForConditionalGeneration if is_decoder else ForSeq2SeqLM


def _source_length(arguments, model: TaskModel) -> int:
    limit = model.backbone.length_limit
    if limit is not None and isinstance(model, ForConditionalGeneration):
        limit -= arguments.max_target_length + 1  # the separator
    most = limit if limit is not None else USUAL_SOURCE_LENGTH
    if most < 1 or (arguments.max_source_length or 1) > most:
        raise ValueError(
            f"max_source_length must be between 1 and {most}, what the model has positions for beside "
            f"max_target_length={arguments.max_target_length}, got {arguments.max_source_length}"
        )
    return arguments.max_source_length or min(most, USUAL_SOURCE_LENGTH)


def _evaluation(arguments, sources: dict, writer: Writer, targets: list[str]) -> LossEvaluation | None:
    if VALIDATION not in sources:
        return None
    source, size = sources[VALIDATION], arguments.per_device_eval_batch_size
    if arguments.predict_with_generate:
        return WritingEvaluation(source, size, writer, targets)
    return LossEvaluation(source.batches(size, shuffle=False, drop_remainder=False), source.rows)


def _prediction(arguments, sources: dict, writer: Writer):
    if TEST not in sources:
        return None

    def write(model: TaskModel) -> None:
        texts, _ = writer(model, sources[TEST])
        lines = [" ".join(text.split()) for text in texts]
        write_predictions(arguments.output_dir, "generated_predictions.txt", lines)

    return write

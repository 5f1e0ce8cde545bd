"""What the recipes share whose models write texts from other texts: summaries, translations, answers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import datasets
import keras
import numpy as np
from tqdm import tqdm

from tfheads.data.source_target import TARGET, SourceTargetRows, source_target_rows
from tfheads.generation.settings import settings
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
    write_predictions,
)
from tfheads.recipes.models import load_model, new_config
from tfheads.recipes.training import TrainingRun
from tfheads.registry import family_of
from tfheads.tasks.conditional_generation import ForConditionalGeneration

USUAL_SOURCE_LENGTH = 1024

Measure = Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]


@dataclasses.dataclass(kw_only=True)
class WritingArguments(FineTuningArguments):
    """How long sources and targets are, and how targets are written when the model is measured."""

    source_prefix: str | None = argument(
        None, "put before each source, such as 'summarize: '; default: the checkpoint's for this task, or nothing"
    )
    max_source_length: int | None = argument(
        None, "tokens of a source; default: what the targets leave of the model's positions, at most 1024", at_least=1
    )
    max_target_length: int = argument(128, "tokens of a target", at_least=1)
    val_max_target_length: int | None = argument(
        None,
        "tokens of a target that is written; default: max_target_length",
        also=["generation_max_length"],
        at_least=1,
    )
    ignore_pad_token_for_loss: bool = argument(True, "whether what fills targets up is not learned")
    predict_with_generate: bool = argument(False, "whether evaluation writes the targets and measures them")
    num_beams: int = argument(1, "beams with which targets are written", also=["generation_num_beams"], at_least=1)
    forced_bos_token: str | None = argument(
        None, "the token that each written target begins with, as the language of multilingual models"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.max_seq_length is not None:
            raise ValueError("max_seq_length must not be given: give max_source_length and max_target_length")


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes the targets of all sources.

    Attributes:
        tokenizer: of the model.
        batch_size: sources that are read at a time.
        options: of `generate`.
        jit_compile: whether XLA compiles it.
    """

    tokenizer: object
    batch_size: int
    options: dict
    jit_compile: bool = True

    def __call__(self, model: TaskModel, source: SourceTargetRows) -> tuple[list[str], list[int]]:
        """Texts, and how many tokens each has, in the order of the data."""
        rows, order = [[] for _ in range(source.rows)], iter(source.row_order(self.batch_size))
        batches = source.batches(self.batch_size, shuffle=False, drop_remainder=False)
        for batch in tqdm(batches, desc="Writing", delay=3, leave=False):
            inputs, _ = model.without_labels(batch)
            inputs = {name: value.numpy() for name, value in inputs.items()}
            used = len(inputs["input_ids"])
            fill = [(0, self.batch_size - used), (0, 0)]  # the last batch, for which XLA would compile once more
            inputs = {name: np.pad(value, fill, mode="edge") for name, value in inputs.items()}
            for tokens in model.new_tokens(inputs, jit_compile=self.jit_compile, **self.options)[:used]:
                rows[next(order)] = tokens.tolist()
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in texts], list(map(len, rows))

    def check(self, model: TaskModel) -> None:
        """Raises a `ValueError`, before any time is lost, if the model cannot write with these options."""
        limit = model.backbone.generation_limit
        settings(model.generation_config, self.options, np.ones(1, "int32"), limit, model.vocab_size)

    def measured(
        self, model: TaskModel, source: SourceTargetRows, targets: Sequence[str], measure: Measure
    ) -> tuple[list[str], dict[str, float]]:
        """The written texts, and what they measure: the task's results and `gen_len`, the mean of their tokens."""
        texts, lengths = self(model, source)
        return texts, {**measure(texts, targets), "gen_len": float(np.mean(lengths))}


class WritingEvaluation(LossEvaluation):
    """The loss, and how the targets that the model writes compare with the right ones.

    Args:
        source: the evaluation data.
        batch_size: rows of a batch.
        writer: see `Writer`.
        targets: the right texts.
        measure: from written texts and the right ones to results by name.
    """

    def __init__(
        self, source: SourceTargetRows, batch_size: int, writer: Writer, targets: Sequence[str], measure: Measure
    ):
        super().__init__(source.batches(batch_size, shuffle=False, drop_remainder=False), source.rows)
        self.source, self.writer, self.targets, self.measure = source, writer, targets, measure

    def __call__(self, model: TaskModel) -> dict[str, float]:
        """The loss, the measures, and `gen_len`: tokens of a written target, the mean."""
        _, found = self.writer.measured(model, self.source, self.targets, self.measure)
        return {**super().__call__(model), **found}


def writing_run(
    arguments: WritingArguments,
    tokenizer,
    splits: Mapping[str, datasets.Dataset],
    measure: Measure,
    purpose: str | None = None,
) -> TrainingRun:
    """The run of a model that writes targets from sources.

    Args:
        arguments: of the run.
        tokenizer: of the model.
        splits: by name, as `tfheads.data.source_target.source_target_texts` makes them.
        measure: from written texts and the right ones to results by name.
        purpose: the task under whose name configs keep the text that sources begin with, such as "summarization".

    Raises:
        ValueError: lengths or options that the model cannot have, in one sentence.
    """
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    model = load_model(arguments, tokenizer, _model_class(arguments, tokenizer), **head_config(arguments, tokenizer))
    if isinstance(model, ForSeq2SeqLM):
        model.backbone.target_of_labels(np.zeros((1, 1), "int32"))  # says what the config lacks
    options = _generation_options(arguments, tokenizer, model)
    lengths = {"max_source_length": _source_length(arguments, model), "max_target_length": arguments.max_target_length}
    sources = {
        split: source_target_rows(
            splits[split],
            tokenizer,
            prefix=_prefix(arguments, model, purpose),
            split=split,
            end_token_id=_end_token_id(model),
            buckets=arguments.bucket_lengths,
            pad_to_max_length=arguments.pad_to_max_length,
            ignore_padding=arguments.ignore_pad_token_for_loss,
            num_proc=arguments.preprocessing_num_workers,
            **lengths,
        )
        for split in sorted(splits, reverse=True)  # the short ones first
    }
    writer = Writer(tokenizer, arguments.per_device_eval_batch_size, options, arguments.jit_compile)
    if arguments.predict_with_generate or arguments.do_predict:
        writer.check(model)
    targets = {split: rows[TARGET][:] for split, rows in splits.items() if split != TRAIN and TARGET in rows.features}
    return fine_tuning_run(
        arguments,
        model,
        tokenizer,
        train=sources.get(TRAIN),
        evaluation=_evaluation(arguments, sources, writer, targets, measure),
        prediction=_prediction(arguments, sources, writer, targets, measure),
    )


def _model_class(arguments, tokenizer) -> type[TaskModel]:
    """Encoder-decoders read the source by themselves, decoders in one sequence with the target."""
    config = checkpoint_config(arguments) or new_config(arguments, tokenizer)
    is_decoder = ForConditionalGeneration.task in family_of(config.model_type).heads
    return ForConditionalGeneration if is_decoder else ForSeq2SeqLM


def _prefix(arguments, model: TaskModel, purpose: str | None) -> str:
    """What sources begin with; kept in the config, so that a pipeline puts the same there."""
    known = dict(getattr(model.config, "task_specific_params", None) or {})
    own = dict(known.get(purpose) or {})
    if arguments.source_prefix is None:
        return own.get("prefix", getattr(model.config, "prefix", None)) or ""
    if purpose is not None:
        model.config.task_specific_params = {**known, purpose: {**own, "prefix": arguments.source_prefix}}
    return arguments.source_prefix


def _generation_options(arguments, tokenizer, model: TaskModel) -> dict:
    """What `generate` is called with; a token to begin with is kept with the model."""
    if arguments.forced_bos_token is not None:
        number = tokenizer.convert_tokens_to_ids(arguments.forced_bos_token)
        if number is None or (number == tokenizer.unk_token_id and arguments.forced_bos_token != tokenizer.unk_token):
            raise ValueError(f"forced_bos_token must be a token of the tokenizer, got {arguments.forced_bos_token!r}")
        model.generation_config.forced_bos_token_id = number
    new = arguments.val_max_target_length or arguments.max_target_length
    return {"max_new_tokens": new, "num_beams": arguments.num_beams}


def _end_token_id(model: TaskModel) -> int | None:
    """What targets must end with; decoders put it there themselves."""
    if isinstance(model, ForConditionalGeneration):
        return None
    ends = model.generation_config.eos_token_id
    return ends[0] if isinstance(ends, (list, tuple)) else ends


def _source_length(arguments, model: TaskModel) -> int:
    limit, new = model.backbone.length_limit, arguments.max_target_length
    if limit is not None and isinstance(model, ForConditionalGeneration):
        limit -= new + 1  # the separator
    elif model.backbone.generation_limit is not None and new > model.backbone.generation_limit:
        most = model.backbone.generation_limit
        raise ValueError(f"max_target_length must be at most {most}, the positions of the decoder, got {new}")
    most = limit if limit is not None else USUAL_SOURCE_LENGTH
    if most < 1 or (limit is not None and (arguments.max_source_length or 1) > most):
        raise ValueError(
            f"max_source_length must be between 1 and {most}, what the model has positions for beside "
            f"max_target_length={new}, got {arguments.max_source_length}"
        )
    return arguments.max_source_length or min(most, USUAL_SOURCE_LENGTH)


def _evaluation(arguments, sources, writer: Writer, targets, measure: Measure) -> LossEvaluation | None:
    if VALIDATION not in sources:
        return None
    source, size = sources[VALIDATION], arguments.rows_per_evaluation_step
    if arguments.predict_with_generate:
        return WritingEvaluation(source, size, writer, targets[VALIDATION], measure)
    return LossEvaluation(source.batches(size, shuffle=False, drop_remainder=False), source.rows)


def _prediction(arguments, sources, writer: Writer, targets, measure: Measure):
    """Writes a line for each row of the test data, and measures them if it has targets."""
    if TEST not in sources:
        return None

    def write(model: TaskModel) -> dict[str, float]:
        if TEST in targets:
            texts, found = writer.measured(model, sources[TEST], targets[TEST], measure)
        else:
            texts, found = writer(model, sources[TEST])[0], {}
        lines = [" ".join(text.split()) for text in texts]
        write_predictions(arguments.output_dir, "generated_predictions.txt", lines)
        return found

    return write

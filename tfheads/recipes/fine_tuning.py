"""What the recipes on labelled data share: the splits, the padded rows, and the run made of them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import pyarrow.compute
import transformers

from tfheads.checkpoints import hub
from tfheads.checkpoints.pretrained import read_config
from tfheads.data.batching import PaddedRows
from tfheads.data.labelled_text import bucket_lengths
from tfheads.data.pipeline import BatchSource
from tfheads.data.sources import load_splits
from tfheads.data.tokenizing import resolve_block_size
from tfheads.distribute import is_chief
from tfheads.models import TaskModel
from tfheads.recipes.arguments import FineTuningArguments
from tfheads.recipes.models import download_options, load_tokenizer
from tfheads.recipes.training import TrainingRun, training_batches, updates_per_epoch

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def labelled_splits(
    arguments: FineTuningArguments,
    dataset: tuple[str | None, str | None] | None = None,
    suffixes: tuple[str, ...] = ("",),
    read: Callable[[list[str]], datasets.Dataset | None] | None = None,
) -> dict[str, datasets.Dataset]:
    """The rows that the run needs, by the name of the split.

    Args:
        arguments: of the run.
        dataset: name and configuration on the Hub; None for those in the arguments.
        suffixes: of the validation and the test splits of the named dataset, such as `("_matched", "_mismatched")`.
        read: reads files in a format of the task; gives None for those that are tables.

    Raises:
        ValueError: a split that the run needs is missing or empty.
    """
    name, config = dataset or (arguments.dataset_name, arguments.dataset_config_name)
    files = {TRAIN: arguments.train_file, VALIDATION: arguments.validation_file, TEST: arguments.test_file}
    own = {split: read(given) for split, given in files.items() if given and read is not None}
    own = {split: rows for split, rows in own.items() if rows is not None}
    files = {split: given for split, given in files.items() if split not in own}
    options = {"num_proc": arguments.preprocessing_num_workers, "cache_dir": arguments.cache_dir}
    found = {**load_splits(name, config, files=files, token=arguments.token, **options), **own}
    needed = [
        (TRAIN, arguments.do_train, ("",), arguments.max_train_samples),
        (VALIDATION, arguments.evaluates, suffixes, arguments.max_eval_samples),
        (TEST, arguments.do_predict, suffixes, arguments.max_predict_samples),
    ]
    splits = {}
    for split, is_needed, endings, limit in needed:
        if not is_needed:
            continue
        names = [split + ending for ending in endings if split + ending in found] or [split]
        if names[0] not in found:
            wanted = f"{split}_file" if name is None or split == TEST else f"a dataset with a split {split}"
            raise ValueError(f"there is no {split} data: give {wanted}")
        for each in names:
            rows = found[each]
            splits[each] = rows if limit is None else rows.select(range(min(limit, len(rows))))
    return splits


def load_padding_tokenizer(
    arguments: FineTuningArguments, takes_words: bool = False
) -> transformers.PreTrainedTokenizerBase:
    """The run's tokenizer; one without a token for padding, such as GPT-2's, pads with its end of text.

    Args:
        arguments: of the run.
        takes_words: whether texts are given as lists of words, for which byte-level ones need a space before each.
    """
    tokenizer = load_tokenizer(arguments)
    if takes_words and getattr(tokenizer, "add_prefix_space", True) is False:
        tokenizer = load_tokenizer(arguments, add_prefix_space=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def head_config(arguments: FineTuningArguments, tokenizer, **values) -> dict:
    """Config values for `load_model`, with the id for padding where the checkpoint has none."""
    config = checkpoint_config(arguments)
    if config is not None and config.pad_token_id is None and tokenizer.pad_token_id is not None:
        values["pad_token_id"] = tokenizer.pad_token_id
    return values


def checkpoint_config(arguments: FineTuningArguments) -> transformers.PreTrainedConfig | None:
    """The config of the checkpoint that the run starts from; None for new weights."""
    if arguments.model_name_or_path is None:
        return None
    return read_config(hub.resolve(arguments.model_name_or_path, weights=False, **download_options(arguments)))


def classes_of(arguments: FineTuningArguments, names: list[str]) -> tuple[list[str], list[str]]:
    """The classes by their names in the data, and by their names in the model, in the order of the model.

    A checkpoint that knows the names keeps its order, and numbers 0, 1, ... stand for the classes of one that has as
    many; else both are the names of the data.

    Raises:
        ValueError: labels in the data that a checkpoint, which is not to be trained, does not know.
    """
    config = checkpoint_config(arguments)
    if config is None:
        return names, names
    known = [config.id2label[number] for number in sorted(config.id2label)]
    numbers = [str(number) for number in range(len(known))]
    if len(names) == len(known) and all(name.startswith("LABEL_") for name in known):
        return names, names
    if len(names) == len(known) or not arguments.do_train:
        for own in (known, [name.lower() for name in known], numbers):
            if set(names) <= set(own):
                return own, known
    if not arguments.do_train:
        unknown = next((name for name in names if name not in known), names[-1])
        raise ValueError(f"the data has the label {unknown!r}, the model knows {', '.join(known)}")
    return names, names


def row_length(arguments: FineTuningArguments, tokenizer, model: TaskModel, usual: int) -> int:
    """How many tokens a row may have: what is given, or `usual` if the model has so many positions.

    Raises:
        ValueError: more than the model has positions for.
    """
    most = resolve_block_size(arguments.max_seq_length, tokenizer, model.backbone.length_limit)
    return most if arguments.max_seq_length is not None else min(most, usual)


def padded_source(
    arguments: FineTuningArguments, rows: datasets.Dataset, tokenizer, model: TaskModel, max_length: int
) -> PaddedRows:
    """Tokenised rows as batches of a few lengths.

    Args:
        arguments: of the run.
        rows: `input_ids`, further inputs, and labels if there are any; other columns are left out.
        tokenizer: says how to pad.
        model: says which inputs it takes.
        max_length: tokens of the longest row that there may be.
    """
    taken = {*model.accepted_inputs, *(criterion.labels for criterion in model.criteria)}
    rows = rows.select_columns([name for name in rows.column_names if name in taken])
    tables = rows.with_format("arrow").iter(batch_size=10_000)
    longest = max(
        pyarrow.compute.max(pyarrow.compute.list_value_length(table["input_ids"])).as_py() for table in tables
    )
    buckets = bucket_lengths(longest, max_length, arguments.bucket_lengths, arguments.pad_to_max_length)
    return PaddedRows(rows, tokenizer, model.accepted_inputs, buckets=buckets)


def fine_tuning_run(
    arguments: FineTuningArguments,
    model: TaskModel,
    tokenizer,
    *,
    train: BatchSource | None,
    evaluation: Callable[[TaskModel], Mapping[str, float]] | None,
    prediction: Callable[[TaskModel], Mapping[str, float] | None] | None = None,
    dataset: str | None = None,
) -> TrainingRun:
    """The run of a recipe on labelled data.

    Args:
        arguments: of the run.
        model, tokenizer: what is trained and saved.
        train: rows to train on.
        evaluation, prediction: see `TrainingRun`.
        dataset: its name for the model card; None for what the arguments say.
    """
    named = dataset or arguments.dataset_name
    return TrainingRun(
        arguments=arguments,
        model=model,
        tokenizer=tokenizer,
        batches=None if train is None else training_batches(arguments, train),
        updates_per_epoch=1 if train is None else updates_per_epoch(arguments, train),
        evaluation=evaluation,
        train_rows=0 if train is None else train.rows,
        dataset=[named] if named else list(arguments.train_file or ()),
        prediction=prediction,
    )


def write_predictions(directory: "str | os.PathLike", name: str, lines: list[str]) -> Path:
    """Writes `<name>` into the directory of the run, one line for each row, and says so; only the chief does."""
    path = Path(directory, name)
    if not is_chief():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"The predictions are in {path}")
    return path

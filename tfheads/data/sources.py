"""Raw text as `datasets` objects: from the Hub or from local files, with one column of strings.

Everything that can be wrong with a corpus is said here, in one sentence, before any time is spent on tokenising it.
"""

import csv
import difflib
import glob
import gzip
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import datasets

ENDINGS = {
    ".txt": "text",
    ".text": "text",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
# A stream may be far larger than what anybody waits for: only its beginning is checked before the start.
STREAM_CHECK_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20

Files = str | os.PathLike | Sequence[str | os.PathLike]


def load_text(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    *,
    train_file: Files | None = None,
    validation_file: Files | None = None,
    validation_split_percentage: float | None = 5,
    split_seed: int | None = None,
    text_column: str | None = None,
    separator: str = " ",
    sample_by: str = "line",
    keep_linebreaks: bool = True,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> dict[str, datasets.Dataset | datasets.IterableDataset]:
    """A corpus as `{"train": ..., "validation": ...}`, each a `datasets` object with the one column `text`.

    Args:
        dataset_name: a dataset of the Hub, or a directory that `Dataset.save_to_disk` wrote. Either this or files.
        dataset_config_name: its configuration, for instance `"wikitext-2-raw-v1"`.
        train_file, validation_file: a file, a list of files, a glob pattern or a folder. Endings: .txt .text .json
            .jsonl .csv .tsv .parquet, each also with .gz.
        validation_split_percentage: what goes into `validation` when the corpus brings none; 0 or None for no split.
        split_seed: None takes the first rows, as Hugging Face's run_clm does; a number draws rows at random, the same
            ones for the same number. A stream gives the first rows of every hundred, or for parts of a percent of as
            many as that takes.
        text_column: a column, or a dotted path into nested ones (`answers.text`). Default: `text`, or the only column
            of strings. A list of strings is joined with `separator`.
        sample_by: what a row of a .txt file is: `"line"`, `"paragraph"` or `"document"` (the whole file).
        keep_linebreaks: whether lines of .txt files keep their line break.
        streaming: read while training; nothing is written to the disk.

    Raises:
        FileNotFoundError: a file, folder or pattern that matches nothing.
        ValueError: an empty corpus, an unknown ending, text that is not UTF-8, a wrong percentage, both or no source.
        KeyError: an unknown text column, or a dataset with neither split.
    """
    percentage = _checked_percentage(validation_split_percentage)
    if (dataset_name is None) == (train_file is None and validation_file is None):
        raise ValueError(
            f"give either dataset_name or train_file / validation_file, got dataset_name={dataset_name!r}, "
            f"train_file={train_file!r}, validation_file={validation_file!r}."
        )
    if dataset_name is not None:
        options = {"cache_dir": cache_dir, "revision": revision, "token": token, "streaming": streaming}
        raw = _load_named(dataset_name, dataset_config_name, num_proc=num_proc, **options)
    else:
        raw = {}
        for split, files in (("train", train_file), ("validation", validation_file)):
            if files is not None:
                raw[split] = load_files(
                    files,
                    sample_by=sample_by,
                    keep_linebreaks=keep_linebreaks,
                    streaming=streaming,
                    num_proc=num_proc,
                    cache_dir=cache_dir,
                )
    texts = {name: select_text(raw[name], text_column, separator) for name in ("train", "validation") if name in raw}
    if not texts:
        splits = ", ".join(raw)
        raise KeyError(f"dataset {dataset_name!r} has no split 'train' or 'validation', its splits are {splits}.")
    if percentage and "validation" not in texts:
        texts["train"], texts["validation"] = split_validation(texts["train"], percentage, split_seed)
    for name, dataset in texts.items():
        _refuse_empty(dataset, name)
    return texts


def load_splits(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    *,
    files: Mapping[str, Files | None],
    num_proc: int | None = None,
    cache_dir: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> dict[str, datasets.Dataset]:
    """Labelled data with all its columns: the splits of a named dataset, and of files.

    Args:
        dataset_name, dataset_config_name: as in `load_text`.
        files: files of each split, which replace the named dataset's split.

    Raises:
        FileNotFoundError: a file, folder or pattern that matches nothing.
        ValueError: a split without rows, an unknown ending, text that is not UTF-8.
    """
    options = {"num_proc": num_proc, "cache_dir": cache_dir}
    found: dict[str, datasets.Dataset] = {}
    if dataset_name is not None:
        named = {"revision": revision, "token": token, "streaming": False, **options}
        found.update(_load_named(dataset_name, dataset_config_name, **named))
    found.update({split: load_files(given, **options) for split, given in files.items() if given})
    for split, dataset in found.items():
        if not len(dataset):
            raise ValueError(f"{split} is empty: it has no rows")
    return found


def load_files(
    files: Files,
    *,
    sample_by: str = "line",
    keep_linebreaks: bool = True,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """The rows of local files, all of one kind, in the order of their names. Arguments as in `load_text`."""
    paths = find_files(files)
    kinds = {path: _kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        first, second = (next(p for p in paths if kinds[p] == kind) for kind in sorted(set(kinds.values()))[:2])
        raise ValueError(f"the files of one split must be of one kind, got {first} and {second}.")
    if not any(os.path.getsize(path) for path in paths):
        raise ValueError(f"the corpus is empty: {_listed(paths)} holds no bytes.")
    # An empty file among others is harmless text, but no table for the csv and parquet readers.
    paths = [path for path in paths if os.path.getsize(path)]
    kind = kinds[paths[0]]
    if kind != "parquet":
        for path in paths:
            check_utf8(path, STREAM_CHECK_BYTES if streaming else None)
    options: dict[str, Any] = {}
    if kind == "text":
        options = {"encoding": "utf-8-sig", "sample_by": sample_by, "keep_linebreaks": keep_linebreaks}
    elif kind == "csv":
        options = {"encoding": "utf-8-sig"}
        if ".tsv" in os.path.basename(paths[0]):
            quoting = csv.QUOTE_NONE if any(map(_has_bare_quotes, paths)) else csv.QUOTE_MINIMAL
            options |= {"sep": "\t", "quoting": quoting}
    try:
        return datasets.load_dataset(
            kind,
            data_files={"train": [glob.escape(path) for path in paths]},
            split="train",
            streaming=streaming,
            num_proc=None if streaming else num_proc,
            cache_dir=cache_dir,
            **options,
        )
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise ValueError(f"{_listed(paths)} cannot be read as {kind}: {cause}") from error


def find_files(files: Files) -> list[str]:
    """The sorted paths that a file, a list of files, a glob pattern or a folder (with its subfolders) stands for."""
    if not isinstance(files, str | os.PathLike):
        found = [path for item in files for path in find_files(item)]
        if not found:
            raise FileNotFoundError("the list of files is empty; give at least one file.")
        return list(dict.fromkeys(found))
    path = os.path.expanduser(os.fspath(files))
    if os.path.isfile(path):
        return [os.path.abspath(path)]
    if os.path.isdir(path):
        below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
        found = [item for item in below if _ending(item) in ENDINGS and not os.path.basename(item).startswith(".")]
        if not found:
            raise FileNotFoundError(f"the folder {path} holds no file that ends in {_accepted()}.")
    else:
        found = [item for item in glob.glob(path, recursive=True) if os.path.isfile(item)]
        if not found:
            raise FileNotFoundError(f"no file, folder or pattern matches {path!r}.{_nearest_file(path)}")
    return sorted(os.path.abspath(item) for item in found)


def file_kind(files: Files) -> str | None:
    """What `load_files` would read files as: "text", "json", "csv" or "parquet"; None for an unknown ending.

    Raises:
        FileNotFoundError: a file, folder or pattern that matches nothing.
    """
    return ENDINGS.get(_ending(find_files(files)[0]))


def check_utf8(path: str, limit: int | None = None) -> None:
    """Raises ValueError with file, byte offset (of the unpacked text) and line when the file is not UTF-8 text.

    Args:
        limit: how many bytes to look at; None for all.
    """
    position, line, rest = 0, 1, b""
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            data = rest + chunk
            try:
                data.decode("utf-8")
                good, rest = data, b""
            except UnicodeDecodeError as error:
                # A character may be cut by the end of the chunk, but not by the end of the file.
                if not chunk or error.reason != "unexpected end of data":
                    offset = position + error.start
                    line += data.count(b"\n", 0, error.start)
                    wide = position == 0 and data[:2] in (b"\xff\xfe", b"\xfe\xff")
                    raise ValueError(
                        f"{path} is not UTF-8 text{' (it starts like UTF-16)' if wide else ''}: byte "
                        f"0x{data[error.start]:02x} at offset {offset}, line {line}; convert the file to UTF-8."
                    ) from error
                good, rest = data[: error.start], data[error.start :]
            position, line = position + len(good), line + good.count(b"\n")
            if not chunk or (limit is not None and position >= limit):
                return


def select_text(
    dataset: datasets.Dataset | datasets.IterableDataset, text_column: str | None = None, separator: str = " "
) -> datasets.Dataset | datasets.IterableDataset:
    """The same rows with the one column `text`: a string each; lists are flattened and joined, None is empty.

    Args:
        text_column: a column or a dotted path into nested ones; None for `text`, or the only column of strings.

    Raises:
        KeyError: the column does not exist (the message names those that do), or the choice is not clear.
    """
    features = dataset.features or dataset._resolve_features().features
    if features is None:
        raise ValueError("the corpus is empty: it has no rows to take columns from.")
    path = _text_path(features, text_column)
    if path == ["text"] and list(features) == ["text"] and _is_string(features["text"]):
        return dataset
    arguments: dict[str, Any] = {
        "batched": True,
        "fn_kwargs": {"path": path, "separator": separator},
        "remove_columns": list(features),
    }
    text_only = datasets.Features({"text": datasets.Value("string")})
    if isinstance(dataset, datasets.IterableDataset):
        return dataset.map(_joined_texts, features=text_only, **arguments)
    return dataset.map(_joined_texts, features=text_only, desc="Reading text", **arguments)


def split_validation(
    dataset: datasets.Dataset | datasets.IterableDataset, percentage: float, seed: int | None = None
) -> tuple[Any, Any]:
    """(train, validation): `percentage` of the rows go into validation; see `load_text` for which ones."""
    percentage = _checked_percentage(percentage)
    if isinstance(dataset, datasets.IterableDataset):
        part = Fraction(percentage).limit_denominator(10**9)  # 0.5 % is the first row of every two hundred
        options = {"taken": part.numerator, "every": 100 * part.denominator}
        return tuple(
            dataset.filter(_is_among_first, with_indices=True, fn_kwargs={**options, "wanted": wanted})
            for wanted in (False, True)
        )
    rows = len(dataset)
    size = round(rows * percentage / 100)
    if not 0 < size < rows:
        raise ValueError(
            f"validation_split_percentage={percentage:g} of {rows} rows leaves {size} for validation and {rows - size} "
            "for training; give another percentage or a validation_file."
        )
    if seed is not None:
        parts = dataset.train_test_split(test_size=size, seed=seed, shuffle=True)
        return parts["train"], parts["test"]
    return dataset.select(range(size, rows)), dataset.select(range(size))


def _load_named(name: str, config: str | None, num_proc: int | None, streaming: bool, **options: Any) -> Mapping:
    if os.path.isdir(name) and any(
        os.path.isfile(os.path.join(name, mark)) for mark in ("dataset_dict.json", "state.json")
    ):
        saved = datasets.load_from_disk(name)
        return saved if isinstance(saved, Mapping) else {"train": saved}
    try:
        return datasets.load_dataset(
            name, config, streaming=streaming, num_proc=None if streaming else num_proc, **options
        )
    except datasets.exceptions.DatasetBuildError as error:
        raise ValueError(f"dataset {name!r} cannot be read: {error.__cause__ or error}") from error


def _checked_percentage(percentage: float | None) -> float:
    if percentage is None:
        return 0
    if not 0 <= percentage < 100:
        raise ValueError(f"validation_split_percentage must be at least 0 and below 100, got {percentage}.")
    return percentage


def _ending(path: str) -> str:
    return os.path.splitext(path.removesuffix(".gz"))[1].lower()


def _accepted() -> str:
    return ", ".join(ENDINGS) + " (or these with .gz)"


def _kind(path: str) -> str:
    if _ending(path) not in ENDINGS:
        raise ValueError(f"{path} ends in {_ending(path) or 'nothing'!r}, accepted are {_accepted()}.")
    return ENDINGS[_ending(path)]


def _has_bare_quotes(path: str) -> bool:
    """Whether a field begins with a quotation mark that none ends: the mark is text then, as in the files of GLUE."""
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
        fields = (field for line in file for field in line.rstrip("\r\n").split("\t") if field.startswith('"'))
        return any(len(field) < 2 or not field.endswith('"') for field in fields)


def _listed(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _nearest_file(path: str) -> str:
    folder = os.path.dirname(path) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    close = difflib.get_close_matches(os.path.basename(path), names, 1)
    return f" Did you mean {os.path.join(os.path.dirname(path), close[0])!r}?" if close else ""


def _is_string(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _text_paths(feature: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths to all strings below a feature; lists do not count as a step."""
    if _is_string(feature):
        yield prefix
    elif isinstance(feature, Mapping):
        for name, inner in feature.items():
            yield from _text_paths(inner, (*prefix, name))
    elif isinstance(feature, list):
        yield from _text_paths(feature[0], prefix)
    elif hasattr(feature, "feature"):
        yield from _text_paths(feature.feature, prefix)


def _text_path(features: Mapping[str, Any], text_column: str | None) -> list[str]:
    paths = {".".join(path): list(path) for path in _text_paths(dict(features))}
    if text_column is not None:
        if text_column in paths:
            return paths[text_column]
        every = list(dict.fromkeys([*features, *paths]))
        if text_column in every:
            raise KeyError(f"column {text_column!r} holds no text; columns with text are {', '.join(paths) or 'none'}.")
        close = difflib.get_close_matches(text_column, every, 1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise KeyError(f"there is no column {text_column!r}, the columns are {', '.join(every)}{hint}")
    if "text" in paths:
        return paths["text"]
    strings = [name for name, feature in features.items() if _is_string(feature)]
    if len(strings) == 1:
        return paths[strings[0]]
    raise KeyError(
        f"text_column must be given, as no column is called 'text' and {len(strings)} columns are plain strings; "
        f"columns with text are {', '.join(paths) or 'none'}, all columns are {', '.join(features)}."
    )


def _joined_texts(batch: Mapping[str, list], path: list[str], separator: str) -> dict[str, list[str]]:
    return {"text": [separator.join(_strings_at(value, path[1:])) for value in batch[path[0]]]}


def _strings_at(value: Any, path: list[str]) -> Iterable[str]:
    if value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from _strings_at(item, path)
    elif path:
        yield from _strings_at(value[path[0]], path[1:])
    else:
        yield value


def _is_among_first(_row: Any, index: int, taken: int, every: int, wanted: bool) -> bool:
    return (index % every < taken) == wanted


def _refuse_empty(dataset: datasets.Dataset | datasets.IterableDataset, split: str) -> None:
    """Raises ValueError when no row has a visible character. Stops at the first that has."""
    for row in dataset:
        if row["text"].strip():
            return
    raise ValueError(f"the corpus is empty: no row of the {split} split has any text.")

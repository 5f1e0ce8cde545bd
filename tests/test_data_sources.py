"""Raw text from files: what is read, how it is split, and what each kind of bad corpus says."""

import gzip
import json

import datasets
import pytest

from tests.fake_hub import fake_hub
from tfheads.data import sources


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def load(tmp_path):
    return lambda *args, **kwargs: sources.load_text(*args, cache_dir=str(tmp_path / "cache"), **kwargs)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def write_lines(path, rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_every_kind_of_file_gives_the_same_text(tmp_path, load):
    lines = ["one", "two, three", "föur"]
    table = datasets.Dataset.from_dict({"text": lines, "number": [1, 2, 3]})
    table.to_parquet(str(tmp_path / "a.parquet"))
    table.to_csv(str(tmp_path / "a.csv"), index=False)
    table.to_csv(str(tmp_path / "a.tsv"), index=False, sep="\t")
    write_lines(tmp_path / "a.jsonl", [{"text": line} for line in lines])
    write(tmp_path / "a.json", json.dumps([{"text": line} for line in lines]))
    write(tmp_path / "a.txt", "\n".join(lines))
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    for name in ("a.parquet", "a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt", "b.txt.gz"):
        for streaming in (False, True):
            found = load(
                train_file=str(tmp_path / name),
                validation_split_percentage=0,
                keep_linebreaks=False,
                streaming=streaming,
            )
            assert set(found) == {"train"}
            assert [row["text"] for row in found["train"]] == lines, (name, streaming)


def test_folder_glob_and_list_are_read_in_the_order_of_names(tmp_path, load):
    for name in ("b", "a", "deep/c"):
        write(tmp_path / f"in/{name}.txt", name + "\n")
    write(tmp_path / "in/ignored.bin", "x")
    folder, pattern = str(tmp_path / "in"), str(tmp_path / "in/*.txt")
    listed = [str(tmp_path / "in/b.txt"), str(tmp_path / "in/a.txt")]
    for files, expected in ((folder, "abdeep/c"), (pattern, "ab"), (listed, "ba")):
        rows = load(train_file=files, validation_split_percentage=None, keep_linebreaks=False)["train"]["text"]
        assert "".join(rows) == expected


def test_line_breaks_documents_and_byte_order_marks(tmp_path, load):
    path = write(tmp_path / "a.txt", "\ufeffone\ntwo\n")
    assert list(load(train_file=path, validation_split_percentage=0)["train"]["text"]) == ["one\n", "two\n"]
    whole = load(train_file=path, validation_split_percentage=0, sample_by="document")
    assert list(whole["train"]["text"]) == ["one\ntwo\n"]


def test_validation_is_the_head_or_drawn_by_seed(tmp_path, load):
    path = write(tmp_path / "a.txt", "".join(f"{i}\n" for i in range(200)))
    head = load(train_file=path, validation_split_percentage=10, keep_linebreaks=False)
    assert list(head["validation"]["text"]) == [str(i) for i in range(20)]
    assert list(head["train"]["text"]) == [str(i) for i in range(20, 200)]
    drawn = [
        load(train_file=path, validation_split_percentage=10, split_seed=seed)["validation"]["text"][:]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 20
    stream = load(train_file=path, validation_split_percentage=10, streaming=True, keep_linebreaks=False)
    held_out = [row["text"] for row in stream["validation"]]
    assert held_out == [str(i) for i in (*range(10), *range(100, 110))]
    assert set(held_out).isdisjoint(row["text"] for row in stream["train"])
    own = load(train_file=path, validation_file=write(tmp_path / "v.txt", "held out"))
    assert len(own["train"]) == 200 and list(own["validation"]["text"]) == ["held out"]


def test_nested_text_is_flattened_and_joined(tmp_path, load):
    rows = [
        {"q_id": 1, "answers": {"text": ["first", "second"], "score": [1, 2]}, "turns": [{"said": "a"}, {"said": "b"}]},
        {"q_id": 2, "answers": {"text": ["third"], "score": [1]}, "turns": [{"said": None}]},
    ]
    path = write_lines(tmp_path / "eli5.jsonl", rows)
    for streaming in (False, True):
        options = {"train_file": path, "validation_split_percentage": 0, "streaming": streaming}
        answers = load(text_column="answers.text", separator="\n", **options)["train"]
        assert [row["text"] for row in answers] == ["first\nsecond", "third"]
        assert [row["text"] for row in load(text_column="turns.said", **options)["train"]] == ["a b", ""]


def test_text_column_is_chosen_only_when_the_choice_is_clear(tmp_path, load):
    one = write_lines(tmp_path / "one.jsonl", [{"body": "hello", "id": 3}])
    assert load(train_file=one, validation_split_percentage=0)["train"]["text"][:] == ["hello"]
    two = write_lines(tmp_path / "two.jsonl", [{"body": "hello", "title": "x"}])
    with pytest.raises(KeyError, match="text_column must be given.*body, title"):
        load(train_file=two)
    with pytest.raises(KeyError, match="no column 'boddy', the columns are body, title; did you mean 'body'"):
        load(train_file=two, text_column="boddy")
    with pytest.raises(KeyError, match="column 'id' holds no text; columns with text are body"):
        load(train_file=one, text_column="id")


def test_empty_corpora(tmp_path, load):
    for name, text in (("bytes.txt", ""), ("blank.txt", "\n \n\t\n"), ("blank.jsonl", '{"text": " "}\n')):
        with pytest.raises(ValueError, match="the corpus is empty"):
            load(train_file=write(tmp_path / name, text), validation_split_percentage=0)
    with pytest.raises(ValueError, match="5 of 1 rows leaves 0 for validation"):
        load(train_file=write(tmp_path / "line.txt", "one line"))


def test_text_that_is_not_utf8_names_file_offset_and_line(tmp_path, load):
    bad = tmp_path / "latin.txt"
    bad.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text: byte 0xf6 at offset 7, line 2"):
        load(train_file=str(bad))
    wide = tmp_path / "wide.txt"
    wide.write_bytes("hello".encode("utf-16"))
    with pytest.raises(ValueError, match="starts like UTF-16.*offset 0, line 1"):
        load(train_file=str(wide))
    cut = tmp_path / "cut.txt"
    cut.write_bytes("a\né".encode()[:-1])
    with pytest.raises(ValueError, match="byte 0xc3 at offset 2, line 2"):
        load(train_file=str(cut))


def test_characters_across_chunks_are_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_BYTES", 7)
    good = tmp_path / "good.txt"
    good.write_text("é€😀\n" * 20, encoding="utf-8")
    sources.check_utf8(str(good))
    good.write_bytes(good.read_bytes() + b"\xff")
    with pytest.raises(ValueError, match="offset 200, line 21"):
        sources.check_utf8(str(good))


def test_missing_and_unsupported_files(tmp_path, load):
    write(tmp_path / "train.txt", "hello")
    with pytest.raises(FileNotFoundError, match="trian.txt'.*Did you mean.*train.txt"):
        load(train_file=str(tmp_path / "trian.txt"))
    with pytest.raises(FileNotFoundError, match="no file, folder or pattern matches"):
        load(train_file=str(tmp_path / "*.csv"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file that ends in .txt"):
        load(train_file=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="'.doc', accepted are .txt"):
        load(train_file=write(tmp_path / "a.doc", "x"))
    with pytest.raises(ValueError, match="must be of one kind"):
        load(train_file=[str(tmp_path / "train.txt"), write(tmp_path / "a.csv", "text\nx\n")])
    with pytest.raises(ValueError, match=r"broken\.json cannot be read as json"):
        load(train_file=write(tmp_path / "broken.json", '{"text": '))


def test_sources_exclude_each_other(load):
    for arguments in ({}, {"dataset_name": "x", "train_file": "y"}):
        with pytest.raises(ValueError, match="either dataset_name or train_file"):
            load(**arguments)
    with pytest.raises(ValueError, match="validation_split_percentage must be at least 0 and below 100, got 100"):
        load(train_file="x", validation_split_percentage=100)


def test_a_saved_dataset_is_a_named_one(tmp_path, load):
    splits = {"train": datasets.Dataset.from_dict({"text": ["a", "b"]})}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    found = load(str(tmp_path / "saved"), validation_split_percentage=50)
    assert list(found["train"]["text"]) == ["b"] and list(found["validation"]["text"]) == ["a"]


def test_a_folder_with_splits_is_a_named_one_too(tmp_path, load):
    write_lines(tmp_path / "named/train.jsonl", [{"body": str(i)} for i in range(3)])
    write_lines(tmp_path / "named/validation.jsonl", [{"body": "held out"}])
    for streaming in (False, True):
        found = load(str(tmp_path / "named"), streaming=streaming)
        assert [row["text"] for row in found["train"]] == ["0", "1", "2"]
        assert [row["text"] for row in found["validation"]] == ["held out"]
    write_lines(tmp_path / "headless/test.jsonl", [{"body": "x"}])
    with pytest.raises(KeyError, match="has no split 'train' or 'validation', its splits are test"):
        load(str(tmp_path / "headless"))


def test_an_evaluation_needs_no_train_split(tmp_path, load):
    write_lines(tmp_path / "named/validation.jsonl", [{"body": "held out", "label": 7}])
    for streaming in (False, True):
        found = load(str(tmp_path / "named"), streaming=streaming)
        assert [row["text"] for row in found.pop("validation")] == ["held out"] and not found
    splits = sources.load_splits(str(tmp_path / "named"), files={}, cache_dir=str(tmp_path / "cache"))
    assert set(splits) == {"validation"} and splits["validation"]["label"][:] == [7]


@pytest.mark.parametrize(
    ("percentage", "expected"), [(0.5, [0, 200]), (1.5, [0, 1, 2, 200, 201, 202]), (0.25, [0]), (0.1 + 0.2, [0, 1, 2])]
)
def test_parts_of_a_percent_of_a_stream(percentage, expected):
    stream = datasets.Dataset.from_dict({"text": [str(row) for row in range(400)]}).to_iterable_dataset()
    train, validation = sources.split_validation(stream, percentage)
    assert [int(row["text"]) for row in validation] == expected
    assert [int(row["text"]) for row in train] == [row for row in range(400) if row not in expected]


CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.jsonl}
  - {split: validation, path: validation.jsonl}
- config_name: short
  data_files: short/train.jsonl
---
"""


def test_datasets_of_the_hub(load, monkeypatch):
    """A private one: plain and streamed, another revision, a configuration; and what is wrong with others."""
    with fake_hub(logged_in=False) as hub:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
        lines = {name: json.dumps({"text": name}) + "\n" for name in ("new", "held out", "old", "short")}
        files = {
            "train.jsonl": lines["new"],
            "validation.jsonl": lines["held out"],
            "short/train.jsonl": lines["short"],
        }
        hub.add("datasets/tester/text", {**files, "README.md": CARD}, private=True)
        hub.add("datasets/tester/text", {"train.jsonl": lines["old"]}, branch="v1")
        hub.add("datasets/tester/broken", {"train.jsonl": '{"text": '})

        def texts(**options) -> dict[str, list[str]]:
            found = load("tester/text", token=hub.token, validation_split_percentage=0, **options)
            return {split: [row["text"] for row in rows] for split, rows in found.items()}

        for streaming in (False, True):
            assert texts(streaming=streaming) == {"train": ["new"], "validation": ["held out"]}
        assert texts(revision="v1", streaming=True) == {"train": ["old"]}
        assert texts(dataset_config_name="short") == {"train": ["short"]}
        with pytest.raises(ValueError, match="'long' not found. Available: .'default', 'short'"):
            texts(dataset_config_name="long")
        hub.add("datasets/tester/secret", {"train.jsonl": lines["new"]}, private=True)
        with pytest.raises(FileNotFoundError, match="'tester/secret' doesn't exist on the Hub or cannot be accessed"):
            load("tester/secret")
        with pytest.raises(ValueError, match="dataset 'tester/broken' cannot be read: .*JSON"):
            load("tester/broken")


def test_quotation_marks_in_tables_of_tabs(tmp_path):
    """GLUE's files have them as text, those that pandas writes around fields."""
    (tmp_path / "bare.tsv").write_text('text\tlabel\n" A mark that nobody ends\t1\nplain\t0\n')
    (tmp_path / "quoted.tsv").write_text('text\tlabel\n"a ""mark"""\t1\nplain\t0\n')
    assert sources.load_files(tmp_path / "bare.tsv")["text"][:] == ['" A mark that nobody ends', "plain"]
    assert sources.load_files(tmp_path / "quoted.tsv")["text"][:] == ['a "mark"', "plain"]

"""SavedModels: answers in a fresh process without tfheads, no XLA, atomic versions, refusals."""

import os
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tokenizers import decoders

import tfheads
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.serving_calls import call, decoded, exported, texts
from tfheads.checkpoints.atomic import replaced_directory
from tfheads.serving.versions import ABANDONED_AFTER, PREFIX, new_version

PROMPTS = ["the cat sat on", "", "a café,  two\n lines 中 😀", "the dog ran " * 50, "x", "nul\0 and \x7f"]
MASKED = [
    "the cat [MASK] on the mat.",
    "[MASK]",
    "Café 中 😀 [MASK] é",
    "a [MASK] dog ran over the [MASK] house",
    "[MASK] the dog ran " * 50,
    "red [MASK]" + " x" * 200,
]


ANSWERS = ("sequences", "tokens", "token_ids", "scores")


def sampling(prompts: list, **changes) -> list:
    """A call of the signature `generate`; what is not a list is meant for every prompt."""
    options = {"max_new_tokens": 5, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 1, **changes}
    dtypes = {"temperature": "float32", "top_p": "float32"}
    rows = {name: value if isinstance(value, list) else [value] * len(prompts) for name, value in options.items()}
    given = {name: [dtypes.get(name, "int32"), value] for name, value in rows.items()}
    return ["generate", {"text": texts(prompts), **given}]


# Options of a text, and whether another call has the same answer; numbers that cannot be are taken for the nearest.
ROWS = (
    ({}, "greedy"),
    ({"temperature": 1.5}, "seed 1"),
    ({"temperature": 1.5, "seed": 2}, "seed 2"),
    ({"max_new_tokens": 99}, "longest"),
    ({"temperature": float("nan")}, "greedy"),
    ({"temperature": 1.5, "top_p": 2.0, "top_k": -1}, "seed 1"),
    ({"temperature": -1.0, "top_p": -1.0}, "greedy"),
    ({"temperature": 1.5, "top_p": 0.0}, "top_p small"),
    ({"max_new_tokens": -3}, "none"),
    ({"temperature": 1.5, "top_k": 1}, "top_k 1"),
)


def mixed(prompts: list, first: int) -> list:
    """A call in which each prompt has other options, those of `ROWS` from the one with this number on."""
    rows = [ROWS[(first + row) % len(ROWS)][0] for row in range(len(prompts))]
    standard = {"max_new_tokens": 5, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 1}
    return sampling(prompts, **{name: [row.get(name, value) for row in rows] for name, value in standard.items()})


@pytest.fixture(scope="module")
def gpt2():
    return rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2, n_layer=1)


@pytest.fixture(scope="module")
def bert():
    return rebuilt("BertForMaskedLM", pipeline_cases.BERT, num_hidden_layers=1)


@pytest.fixture(scope="module")
def generator(gpt2, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("generator"))
    return exported(gpt2, tiny_tokenizers.byte_level_bpe(), directory, max_new_tokens=12)


@pytest.fixture(scope="module")
def filler(bert, tmp_path_factory):
    return exported(bert, tiny_tokenizers.wordpiece(), tmp_path_factory.mktemp("filler"), version=3)


@pytest.fixture(scope="module")
def answers(generator, filler, tmp_path_factory):
    """All answers of one fresh process, by bundle and by the names below."""

    def top(k):
        return ["fill_mask", {"text": texts(MASKED), "top_k": ["int32", [k] * (len(MASKED) - 1) + [min(k, 1)]]}]

    def tokens(ids):
        return ["token_level", {"input_ids": ["int32", ids], "attention_mask": ["int32", [[1] * len(ids[0])]]}]

    calls = {
        (generator, "default"): ["serving_default", {"text": texts(PROMPTS)}],
        (generator, "alone"): ["serving_default", {"text": texts(PROMPTS[:1])}],
        (generator, "no rows"): ["serving_default", {"text": ["string", []]}],
        (generator, "bytes"): ["serving_default", {"text": texts([b"the \xff cat", "the cat sat on"])}],
        (generator, "greedy"): sampling(PROMPTS),
        (generator, "seed 1"): sampling(PROMPTS, temperature=1.5),
        (generator, "seed 1 again"): sampling(PROMPTS, temperature=1.5),
        (generator, "seed 2"): sampling(PROMPTS, temperature=1.5, seed=2),
        (generator, "top_k 1"): sampling(PROMPTS, temperature=1.5, top_k=1),
        (generator, "top_p small"): sampling(PROMPTS, temperature=1.5, top_p=1e-6),
        (generator, "longest"): sampling(PROMPTS, max_new_tokens=47),
        (generator, "none"): sampling(PROMPTS, max_new_tokens=0),
        **{(generator, f"mixed {first}"): mixed(PROMPTS, first) for first in range(0, len(ROWS), 3)},
        (generator, "one alone"): sampling(PROMPTS[:1], temperature=1.5),
        (generator, "sizes"): sampling(PROMPTS, temperature=[0.0]),
        (generator, "tokens"): tokens([[1, 2, 3]]),
        (generator, "token out of range"): tokens([[283]]),
        (generator, "too long"): tokens([[1] * 49]),
        (filler, "default"): ["serving_default", {"text": texts([*MASKED, "", "no mask", "cat " * 99 + "[MASK]"])}],
        (filler, "alone"): ["serving_default", {"text": texts(MASKED[:1])}],
        (filler, "no rows"): ["serving_default", {"text": ["string", []]}],
        (filler, "top 2"): top(2),
        (filler, "top 0"): top(0),
        (filler, "top 106"): top(106),
    }
    given = call([[directory, *rest] for (directory, _), rest in calls.items()], tmp_path_factory.mktemp("calls"))
    return dict(zip(calls, given, strict=True))


@pytest.fixture(scope="module")
def generated(answers, generator):
    return {name: answer for (directory, name), answer in answers.items() if directory == generator}


@pytest.fixture(scope="module")
def filled(answers, filler):
    return {name: answer for (directory, name), answer in answers.items() if directory == filler}


def test_generated_text_equals_the_pipeline(gpt2, generated):
    pipe = tfheads.pipeline(
        "text-generation",
        model=gpt2,
        tokenizer=tiny_tokenizers.byte_level_bpe(),
        do_sample=False,
        handle_long_generation="hole",
        jit_compile=False,
    )
    for name, count in (("default", 12), ("greedy", 5), ("longest", 47)):
        answers = [answer["generated_text"] for (answer,) in pipe(PROMPTS, max_new_tokens=count)]
        assert decoded(generated[name]["generated_text"]) == answers
        assert decoded(generated[name]["new_text"]) == [a[len(p) :] for a, p in zip(answers, PROMPTS, strict=True)]


def test_rows_do_not_depend_on_their_neighbours(generated, filled):
    assert generated["alone"]["generated_text"] == generated["default"]["generated_text"][:1]
    assert decoded(generated["bytes"]["new_text"])[1] == decoded(generated["alone"]["new_text"])[0]
    assert decoded(generated["bytes"]["generated_text"])[0].startswith("the \ufffd cat")
    assert generated["no rows"] == {"generated_text": [], "new_text": []}
    assert filled["alone"]["sequences"][0][0] == filled["default"]["sequences"][0][0]
    assert filled["no rows"]["sequences"] == [] and filled["no rows"]["mask_count"] == []


def test_sampling_follows_the_seed_and_its_limits(generated):
    assert generated["seed 1"] == generated["seed 1 again"] != generated["seed 2"]
    assert generated["seed 1"] != generated["greedy"]
    assert generated["top_k 1"] == generated["greedy"] == generated["top_p small"]
    assert generated["one alone"]["new_text"] == generated["seed 1"]["new_text"][:1]
    assert set(generated["none"]["new_text"]) == {""}


@pytest.mark.parametrize("first", range(0, len(ROWS), 3))
def test_each_text_has_its_own_options(generated, first):
    made = generated[f"mixed {first}"]["new_text"]
    others = [ROWS[(first + row) % len(ROWS)][1] for row in range(len(PROMPTS))]
    assert made == [generated[name]["new_text"][row] for row, name in enumerate(others)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sizes", "temperature must have a number for each text"),
        ("token out of range", "input_ids must be between 0 and 282"),
        ("too long", "at most 48 tokens"),
    ],
)
def test_bad_requests_are_errors(generated, name, message):
    assert isinstance(generated[name], str) and message in generated[name]


def test_token_level_equals_the_model(gpt2, generated):
    logits = gpt2({"input_ids": [[1, 2, 3]]}).logits.numpy()
    np.testing.assert_allclose(np.array(generated["tokens"]["logits"]), logits, atol=1e-5)


def test_filled_masks_equal_the_pipeline(bert, filled):
    pipe = tfheads.pipeline(
        "fill-mask", model=bert, tokenizer=tiny_tokenizers.wordpiece(), tokenizer_kwargs={"truncation": True}
    )
    for name, top_k in (("default", 5), ("top 2", 2)):
        for row, expected in enumerate(pipe(MASKED, top_k=top_k)):
            expected = expected if isinstance(expected[0], list) else [expected]
            count = filled[name]["mask_count"][row]
            assert count == len(expected)
            wanted = 1 if name == "top 2" and row == len(MASKED) - 1 else top_k  # one row asks for fewer
            answer = {key: [mask[:wanted] for mask in filled[name][key][row][:count]] for key in ANSWERS}
            expected = [mask[:wanted] for mask in expected]
            assert decoded(answer["sequences"]) == [[a["sequence"] for a in mask] for mask in expected]
            assert decoded(answer["tokens"]) == [[a["token_str"] for a in mask] for mask in expected]
            assert answer["token_ids"] == [[a["token"] for a in mask] for mask in expected]
            scores = [[a["score"] for a in mask] for mask in expected]
            np.testing.assert_allclose(answer["scores"], scores, atol=1e-6)
    assert filled["top 2"]["tokens"][-1][0][1] == "" and filled["top 2"]["scores"][-1][0][1] == 0


def test_texts_without_a_mask_have_no_answers(filled):
    answer = filled["default"]
    assert answer["mask_count"][-3:] == [0, 0, 0]
    assert not np.any(answer["scores"][-3:]) and set(np.ravel(answer["sequences"][-3:])) == {""}


def test_a_number_of_fillings_out_of_range_is_none_or_all_and_leaves_the_neighbours_alone(filled):
    """A server joins the rows of several callers, so that an error would be everybody's."""
    assert np.shape(filled["top 106"]["scores"])[-1] == 105
    assert filled["top 0"]["mask_count"] == filled["top 2"]["mask_count"]
    assert not np.any(filled["top 0"]["scores"]) and set(np.ravel(filled["top 0"]["sequences"])) == {""}
    for name in ("scores", "token_ids"):
        one = np.asarray(filled["top 2"][name])[0, 0, :2]
        np.testing.assert_array_equal(np.asarray(filled["top 106"][name])[0, 0, :2], one)


def saved(version: str):
    """What a SavedModel holds."""
    content = Path(version, "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]


def test_signatures_have_names(generator, filler):
    signatures = saved(generator).signature_def
    assert {name for name in signatures if name[0] != "_"} == {"serving_default", "generate", "token_level"}
    options = {"text", "max_new_tokens", "temperature", "top_k", "top_p", "seed"}
    assert set(signatures["generate"].inputs) == options
    default = saved(filler).signature_def["serving_default"]
    assert set(default.outputs) == {"tokens", "token_ids", "scores", "sequences", "mask_count"}
    assert set(default.inputs) == {"text"} and default.inputs["text"].dtype == tf.string.as_datatype_enum
    assert tf.TensorShape(default.inputs["text"].tensor_shape).as_list() == [None]


@pytest.mark.parametrize("bundle", ["generator", "filler"])
def test_the_graph_needs_no_xla_and_holds_no_weights_and_tables(bundle, request):
    version = request.getfixturevalue(bundle)
    assert Path(version, "saved_model.pb").stat().st_size < 20e6
    graph = saved(version).graph_def
    library = graph.library.function
    nodes = [node for function in library for node in function.node_def] + list(graph.node)
    assert any(node.op == "BatchMatMulV3" for node in nodes) == (bundle == "generator")  # single rows are read fast
    assert len(nodes) > 100 and not [node.op for node in nodes if node.op.startswith("Xla") or "PyFunc" in node.op]
    marked = [function.signature.name for function in library if function.attr["_XlaMustCompile"].b]
    assert not marked + [node.name for node in nodes if node.attr["_XlaMustCompile"].b]
    loops = [node for node in nodes if node.op in ("While", "StatelessWhile") and bundle == "generator"]
    # For one text and for several: one greedy, one that may sample, which finds where top_k and top_p end at the first
    # token and at the next ones, and there draws for several texts one by one; and in each of two signatures one over
    # the groups of prompts.
    assert len(loops) == (2 * 2 + 2 * 2 * 2 + 2 + 2) * (bundle == "generator")
    constants = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    floats = [len(tensor.tensor_content) for tensor in constants if tensor.dtype == tf.float32.as_datatype_enum]
    assert max(floats, default=0) < 1000
    assert max(tensor.ByteSize() for tensor in constants) < 20e3  # nor the tokenizer's tables


def test_without_a_tokenizer_only_tokens_are_served(bert, tmp_path):
    path = bert.export_serving(tmp_path, None)
    signatures = tf.saved_model.load(path).signatures
    assert set(signatures) == {"serving_default", "token_level"}
    ids, mask = tf.constant([[2, 7, 4, 3, 0]]), tf.constant([[1, 1, 1, 1, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": tf.constant([[0, 0, 1, 1, 0]])}
    logits = signatures["serving_default"](**inputs)["logits"]
    np.testing.assert_allclose(logits, bert(inputs).logits, atol=1e-5)


def test_versions_are_neither_overwritten_nor_half_written(bert, tmp_path, monkeypatch):
    first = Path(bert.export_serving(tmp_path, None, version=7))
    assert first == tmp_path / "7"
    with pytest.raises(FileExistsError, match="give another version, or overwrite=True"):
        bert.export_serving(tmp_path, None, version=7)

    def full_disk(module, path, **options):
        Path(path, "saved_model.pb").write_bytes(b"half")
        assert [p.name for p in tmp_path.iterdir() if p.name.isdecimal()] == ["7"]
        raise OSError(28, "No space left on device")

    before, beside = (first / "saved_model.pb").read_bytes(), sorted(path.name for path in tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", full_disk)
        for options in ({"version": 8}, {"version": 7, "overwrite": True}):
            with pytest.raises(OSError, match="No space left"):
                bert.export_serving(tmp_path, None, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == beside
    assert (first / "saved_model.pb").read_bytes() == before
    with new_version(tmp_path, 7, True) as staging:
        (staging / "saved_model.pb").write_bytes(b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == beside
    assert (first / "saved_model.pb").read_bytes() == b"new"


def test_an_inexact_tokenizer_is_refused(gpt2, tmp_path):
    tokenizer = tiny_tokenizers.byte_level_bpe()
    tokenizer.backend_tokenizer.decoder = decoders.CTC()
    with pytest.raises(ValueError, match="CTC; tokenizer=None exports the token-level signature alone"):
        gpt2.export_serving(tmp_path, tokenizer)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"version": 0}, ValueError, "version must be a whole number from 1, got 0"),
        ({"version": "1"}, ValueError, "got '1'"),
        ({"max_tokens": 3}, ValueError, "no option 'max_tokens' for this model, the nearest is 'max_new_tokens'"),
        ({"max_new_tokens": 48}, ValueError, "at most 47"),
        ({"tokenizer": None, "top_k": 3}, ValueError, "top_k must not be given without a tokenizer"),
    ],
)
def test_bad_options(gpt2, tmp_path, monkeypatch, options, error, message):
    monkeypatch.setattr("tfheads.serving.export._in_graph", lambda model, tokenizer, offsets: Mock())
    with pytest.raises(error, match=message):
        gpt2.export_serving(tmp_path, **{"tokenizer": tiny_tokenizers.byte_level_bpe(), **options})
    assert not list(tmp_path.iterdir())


def test_models_that_have_no_text_signature(bert, gpt2, tmp_path):
    words, bare = tiny_tokenizers.wordpiece(), rebuilt("BertForPreTraining", pipeline_cases.BERT)
    with pytest.raises(ValueError, match="tokenizer must be None for BertForPreTraining"):
        bare.export_serving(tmp_path, words)
    words.add_tokens(["onemore"])
    with pytest.raises(ValueError, match="tokenizer has ids up to 105, the model's vocabulary ends at 104"):
        bert.export_serving(tmp_path, words)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="directory must not be a file"):
        gpt2.export_serving(tmp_path / "file", None)


def test_exports_at_once_leave_each_other_alone(tmp_path):
    """Two versions appear whole, a save beside them included; of one version twice the second is refused."""
    with new_version(tmp_path, 1, False) as first, new_version(tmp_path, 2, False) as second:
        for staging in (first, second):
            (staging / "saved_model.pb").write_text("graph")
            (staging / "variables").mkdir()
            (staging / "variables" / "values").write_text("weights")
        with replaced_directory(tmp_path, entry="manifest.json") as beside:
            (beside / "manifest.json").write_text("{}")
    for version in ("1", "2"):
        assert (tmp_path / version / "variables" / "values").read_text() == "weights"
    with pytest.raises(FileExistsError, match="3 exists"), new_version(tmp_path, 3, False) as late:
        (late / "saved_model.pb").write_text("late")
        with new_version(tmp_path, 3, False) as early:
            (early / "saved_model.pb").write_text("early")
    assert (tmp_path / "3" / "saved_model.pb").read_text() == "early"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "manifest.json"]


def test_what_a_dead_export_left_goes_after_an_hour(tmp_path):
    for name, age in (("dead", 2 * ABANDONED_AFTER), ("new", 0)):
        (tmp_path / f"{PREFIX}{name}").mkdir()
        os.utime(tmp_path / f"{PREFIX}{name}", (time.time() - age,) * 2)
    with new_version(tmp_path, 1, False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}new", "1"]

"""`ForTextClassification`: strings in, names out, under XLA, from datasets, in files; bad input is one sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import cases
from tests.fixtures.tiny_tokenizers import byte_level_bpe, wordpiece
from tests.tiny_models import gpt2_config
from tfheads import registry
from tfheads.preprocessing.graph_tokenizers import graph_tokenizer
from tfheads.preprocessing.label_names import LabelNames
from tfheads.preprocessing.texts import TextReader

TOKENIZER = byte_level_bpe()
NAMES = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
TEXTS = ["the cat sat on the mat", "a red dog", "é!", "the old house " * 30]
LABELS = ["good", "bad", "bad", "good"]


def make(tokenizer=TOKENIZER, **changes):
    config = gpt2_config(**{"vocab_size": len(TOKENIZER), **NAMES, **changes})
    return tfheads.GPT2ForTextClassification.from_config(config, seed=0, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def model():
    return make()


def test_texts_give_what_the_sequence_classifier_gives_for_their_ids(model):
    config = gpt2_config(vocab_size=len(TOKENIZER), **NAMES)
    plain = tfheads.GPT2ForSequenceClassification.from_config(config, seed=0)
    batch = model(TEXTS, labels=LABELS)
    for text, logits in zip(TEXTS, batch.logits.numpy(), strict=True):
        ids = TOKENIZER(text)["input_ids"][:32]  # the positions of the model
        np.testing.assert_allclose(plain([ids]).logits[0], logits, atol=1e-6)
    np.testing.assert_allclose(batch.loss, model(TEXTS, labels=[1, 0, 0, 1]).loss)
    assert batch.logits.shape == (4, 2) and model("a cat").logits.shape == (1, 2)


def test_every_form_of_texts_gives_the_same(model):
    expected = model(TEXTS).logits.numpy()
    forms = [np.array(TEXTS), np.array(TEXTS, object), [text.encode() for text in TEXTS], tf.constant(TEXTS)]
    for form in forms:
        np.testing.assert_array_equal(model(form).logits, expected)
    in_graph = tf.function(lambda texts: model(texts).logits, autograph=False)
    np.testing.assert_allclose(in_graph(tf.constant(TEXTS)), expected, atol=1e-6)
    np.testing.assert_array_equal(model(model.encode(TEXTS)).logits, expected)
    pairs = model([("the cat", " sat"), ("a", " dog")]).logits
    np.testing.assert_allclose(pairs, model(["the cat sat", "a dog"]).logits, atol=1e-6)


def test_pairs_have_the_types_of_the_tokenizer():
    reader = TextReader(wordpiece(), ("input_ids", "token_type_ids"), 32, 0)
    read, wanted = (
        reader.arrays([("the cat", "sat"), ("dog", "ran on")]),
        wordpiece()(["the cat", "dog"], ["sat", "ran on"]),
    )
    for row in range(2):
        length = len(wanted["input_ids"][row])
        assert read["token_type_ids"][row, :length].tolist() == wanted["token_type_ids"][row]
        assert read["input_ids"].shape == (2, 16) and not read["input_ids"][row, length:].any()


@pytest.mark.slow
def test_fit_under_xla_learns_from_strings_and_predict_answers_with_names(tmp_path):
    model = make()
    model.compile(tfheads.AdamW(0.01), metrics=["accuracy"])
    assert model.compiled_by_xla
    texts, labels = TEXTS * 4, LABELS * 4
    history = model.fit(
        texts, labels, batch_size=8, epochs=6, validation_data=(texts, [1, 0, 0, 1] * 4), verbose=0
    ).history
    assert history["val_loss"][-1] < 0.5 * history["loss"][0] and history["val_accuracy"][-1] == 1
    predicted = model.predict(TEXTS, verbose=0)
    assert predicted.label_names.tolist() == LABELS and predicted.logits.shape == (4, 2)
    assert model.predict_on_batch(TEXTS).label_names.tolist() == LABELS

    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).batch(8)
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0), model.evaluate(texts, labels, verbose=0), rtol=1e-4)
    before = model.evaluate(dataset, verbose=0)[0]
    model.fit(dataset, validation_data=dataset, verbose=0)
    assert model.evaluate(dataset, verbose=0)[0] < before
    only_texts = dataset.map(lambda texts, labels: texts)
    np.testing.assert_allclose(model.predict(only_texts, verbose=0).logits[:4], model(TEXTS).logits, atol=1e-5)

    model.save_pretrained(tmp_path / "directory")
    model.save(tmp_path / "file.keras")
    for again in (
        tfheads.AutoModelForTextClassification.from_pretrained(tmp_path / "directory"),
        keras.models.load_model(tmp_path / "file.keras"),
    ):
        assert type(again) is tfheads.GPT2ForTextClassification
        np.testing.assert_array_equal(again(TEXTS).logits, model(TEXTS).logits)
        assert again.predict(TEXTS, verbose=0).label_names.tolist() == LABELS
    plain = tfheads.GPT2ForSequenceClassification.from_pretrained(tmp_path / "directory")
    np.testing.assert_array_equal(plain(model.encode(TEXTS)).logits, model(TEXTS).logits)


def test_several_classes_and_numbers_have_labels_of_their_own():
    several = make(problem_type="multi_label_classification")
    loss = several(TEXTS[:2], labels=[["good", "bad"], []]).loss
    np.testing.assert_allclose(loss, several(TEXTS[:2], labels=[[1.0, 1.0], [0.0, 0.0]]).loss)
    names = several.label_names.of(np.array([[1.0, 2.0], [-1.0, 3.0], [-1.0, -2.0]]))
    assert names.tolist() == [("bad", "good"), ("good",), ()]
    number = LabelNames({0: "stars"})
    assert number.of(np.zeros((2, 1))) is None and number.ids([0.5, 2.0]) == [0.5, 2.0]
    with pytest.raises(ValueError, match="labels must be lists of names, for texts have several, got 'good'"):
        several(TEXTS[:2], labels=[["good"], "good"])
    with pytest.raises(ValueError, match="labels must be numbers for this problem_type, got 'good'"):
        number.ids(["good"])


def test_padding_of_the_config_is_padding_of_the_rows():
    model = make(pad_token_id=5)
    assert model.encode(["a"])["input_ids"][0, 1:].tolist() == [5] * 15
    np.testing.assert_allclose(model(TEXTS).logits[1], model(TEXTS[1]).logits[0], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model([]), "input_ids must have 2 axes"),
        (lambda model: model.fit([], []), "texts must not be empty, got none"),
        (lambda model: model(["a", ""]), "texts must have a token each, number 1 is ''"),
        (lambda model: model(["a", None]), "texts must be strings or tuples of two strings, number 1 is a NoneType"),
        (lambda model: model.predict([["the", "cat"]]), "number 0 is a list, join its words"),
        (
            lambda model: model([("a", "b"), "c"]),
            "texts must all be strings or all tuples .*, number 1 is 'c'",
        ),
        (
            lambda model: model(TEXTS[:1], labels=["goood"]),
            "labels must be among bad, good, got 'goood'",
        ),
        (lambda model: model.fit(TEXTS[:1], ["x"]), "labels must be among bad, good, got 'x'"),
        (lambda model: model.fit(dataset(["a"], ["x"])), "labels must be among bad, good, got x"),
        (lambda model: model.fit(dataset(["a", ""], ["bad", "bad"])), "the number of those without must be 0, got 1"),
        (lambda model: model.fit(dataset(["a"], ["bad"]).unbatch()), "texts of a dataset must come in batches"),
        (lambda model: model.fit(TEXTS), "labels are missing"),
        (lambda model: setattr(model, "tokenizer", "gpt2"), "tokenizer must be one of transformers, got str"),
        (
            lambda model: make(vocab_size=40),
            "the tokenizer has the token id 282, but the model only 40 tokens",
        ),
        (lambda model: make(tokenizer=None)(TEXTS), "texts need a tokenizer: set model.tokenizer"),
    ],
)
def test_bad_input_is_one_sentence(model, call, message):
    if not getattr(model, "compiled", False):
        model.compile("sgd", run_eagerly=True)
    with pytest.raises((ValueError, TypeError), match=message) as error:
        call(model)
    assert len(str(error.value).splitlines()) == 1


def dataset(texts, labels):
    return tf.data.Dataset.from_tensor_slices((texts, labels)).batch(2)


def test_a_checkpoint_without_a_tokenizer_reads_ids_alone(tmp_path):
    make(tokenizer=None).save_pretrained(tmp_path)
    model = tfheads.GPT2ForTextClassification.from_pretrained(tmp_path)
    assert model.tokenizer is None and model([[3, 4]]).logits.shape == (1, 2)
    model = tfheads.GPT2ForTextClassification.from_pretrained(tmp_path, tokenizer=TOKENIZER)
    assert model(TEXTS).logits.shape == (4, 2)


def test_every_family_that_classifies_sequences_classifies_texts():
    has = {name: family.heads for name, family in registry.FAMILIES.items()}
    assert {name for name, heads in has.items() if "text-classification" in heads} == {
        name for name, heads in has.items() if "sequence-classification" in heads
    }


@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_texts_are_classes_with_the_weights_of_another_familys_sequence_classifier(kind, tmp_path):
    sizes = {**next(iter(cases.EFFECTS[kind].values())), "vocab_size": len(TOKENIZER), "pad_token_id": 0, **NAMES}
    config = transformers.AutoConfig.for_model(kind, **{**sizes, "eos_token_id": TOKENIZER("the")["input_ids"][-1]})
    model = tfheads.AutoModelForTextClassification.from_config(config, seed=0, tokenizer=TOKENIZER)
    texts = ["the cat the", "the dog the"]
    model.save_pretrained(tmp_path)
    plain = tfheads.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(plain(model.encode(texts)).logits, model(texts).logits)
    again = tfheads.AutoModelForTextClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(texts).logits, model(texts).logits)


def test_the_tokenizer_of_a_dataset_is_not_rewritten_by_autograph(monkeypatch):
    """Its conversion and check would take a minute."""
    states = []

    def recorded(tokenizer):
        states.append(tf.__internal__.autograph.control_status_ctx().status.name)
        return graph_tokenizer(tokenizer)

    monkeypatch.setattr("tfheads.preprocessing.texts.graph_tokenizer", recorded)
    model = make()
    model.compile(jit_compile=False)
    model.evaluate(tf.data.Dataset.from_tensors((["the cat"], [0])), verbose=0)
    assert states == ["DISABLED"]

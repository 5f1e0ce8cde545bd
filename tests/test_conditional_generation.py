"""`ForConditionalGeneration`: source, separator and target in one sequence; bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures.cases import EFFECTS
from tests.quick_cases import slow_but_these
from tests.tiny_models import gpt2_config, token_ids
from tfheads import registry

SOURCE = token_ids(3, 6)
MASK = np.array([[1] * 6, [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
TARGET = token_ids(3, 4, seed=1)
TARGET[1, 2:] = -100
TARGET[2, 3] = 2  # its own end
SEPARATOR, END = 3, 2
DECODERS = [kind for kind, family in registry.FAMILIES.items() if "conditional-generation" in family.heads]


def make(**changes):
    own = {"separator_token_id": changes.pop("separator_token_id", SEPARATOR)}
    return tfheads.GPT2ForConditionalGeneration.from_config(gpt2_config(**changes), seed=0, **own)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def plain():
    return tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0)


def output_of_joined_sequences(model, plain):
    """What a model gives, which is required to be what the language model gives of source, separator and target."""
    output = model(SOURCE, attention_mask=MASK, labels=TARGET)
    losses = []
    for row in range(3):
        source, target = SOURCE[row][MASK[row] == 1].tolist(), [one for one in TARGET[row].tolist() if one != -100]
        target += [END] * (target[-1] != END)
        joined = plain([[*source, SEPARATOR, *target]]).logits[0, len(source) : -1]
        np.testing.assert_allclose(output.logits[row, : len(target)], joined, atol=1e-6)
        losses += tf.nn.sparse_softmax_cross_entropy_with_logits(target, joined).numpy().tolist()
    np.testing.assert_allclose(output.loss, np.mean(losses), rtol=1e-6)
    return output


@pytest.mark.parametrize("kind", slow_but_these(["llama"], [kind for kind in DECODERS if kind != "gpt2"]))
def test_every_decoder_writes_targets(kind, tmp_path):
    sizes = next(iter(EFFECTS[kind].values()))
    config = transformers.AutoConfig.for_model(kind, **{**sizes, "eos_token_id": END})
    plain = tfheads.AutoModelForCausalLM.from_config(config, seed=0)
    plain.save_pretrained(tmp_path)
    model = tfheads.AutoModelForConditionalGeneration.from_pretrained(tmp_path, separator_token_id=SEPARATOR)
    output_of_joined_sequences(model, plain)
    options = {"max_new_tokens": 3, "do_sample": False, "jit_compile": False}
    made = plain.generate([[*SOURCE[0], SEPARATOR]], **options)
    np.testing.assert_array_equal(model.generate(SOURCE[:1], **options), made[:, 7:])


def test_logits_and_loss_are_those_of_the_joined_sequence(model, plain):
    output = output_of_joined_sequences(model, plain)
    assert output.logits.shape == (3, 5, 40)
    first = model(SOURCE, attention_mask=MASK)
    assert "loss" not in first and first.logits.shape == (3, 1, 40)
    np.testing.assert_allclose(first.logits[:, 0], output.logits[:, 0], atol=1e-6)
    compiled = tf.function(
        lambda: model(SOURCE, attention_mask=MASK, labels=TARGET), jit_compile=True, autograph=False
    )()
    np.testing.assert_allclose(compiled.loss, output.loss, rtol=1e-5)


def test_rows_that_are_filled_up_do_not_count(model):
    source, mask = np.concatenate([SOURCE, SOURCE[:1]]), np.concatenate([MASK, MASK[:1]])
    target = np.concatenate([TARGET, np.full((1, 4), -100)])
    loss = model(source, attention_mask=mask, labels=target).loss
    np.testing.assert_allclose(loss, model(SOURCE, attention_mask=MASK, labels=TARGET).loss, rtol=1e-6)


def test_padding_may_be_wider_than_the_positions(model):
    """32 positions: 30 columns of source and 6 of target are too many, but not their real tokens."""
    wide = (
        np.pad(SOURCE, ((0, 0), (24, 0))),
        np.pad(MASK, ((0, 0), (24, 0))),
        np.pad(TARGET, ((0, 0), (2, 0)), constant_values=-100),
    )
    padded = model(wide[0], attention_mask=wide[1], labels=wide[2])
    np.testing.assert_allclose(padded.loss, model(SOURCE, attention_mask=MASK, labels=TARGET).loss, rtol=1e-6)


def test_generate_gives_the_target_alone(model, plain):
    made = model.generate(SOURCE, attention_mask=MASK, max_new_tokens=5)
    assert made.shape == (3, 5)
    for row in range(3):
        prompt = [*SOURCE[row][MASK[row] == 1], SEPARATOR]
        np.testing.assert_array_equal(made[row], plain.generate([prompt], max_new_tokens=5)[0, len(prompt) :])
    np.testing.assert_array_equal(model.generate({"input_ids": SOURCE, "attention_mask": MASK}, max_new_tokens=5), made)
    np.testing.assert_array_equal(np.stack(model.new_tokens(SOURCE, MASK, max_new_tokens=5)), made)
    full = model.generate(input_ids=SOURCE, attention_mask=MASK, max_new_tokens=5, return_dict_in_generate=True)
    np.testing.assert_array_equal(full.sequences, made)
    assert model.generate(SOURCE, num_beams=3, num_return_sequences=2, max_new_tokens=4).shape == (6, 4)


@pytest.mark.slow
def test_fit_under_xla_learns_to_copy_and_files_keep_the_separator(tmp_path):
    model, source = make(n_layer=1), token_ids(8, 6)
    model.compile(tfheads.AdamW(0.02), metrics=["sparse_categorical_accuracy"])
    target = source[:, :3]
    model.fit({"input_ids": source}, target, batch_size=8, epochs=60, verbose=0)
    logs = model.evaluate({"input_ids": source, "labels": target}, verbose=0, return_dict=True)
    assert logs["loss"] < 0.2 and logs["sparse_categorical_accuracy"] == 1
    np.testing.assert_allclose(logs["loss"], model(source, labels=target).loss, rtol=1e-4)
    written = model.generate(source, max_new_tokens=6)
    np.testing.assert_array_equal(written, np.pad(target, ((0, 0), (0, 1)), constant_values=END))
    model.save_pretrained(tmp_path / "directory")
    model.save(tmp_path / "file.keras")
    for again in (
        tfheads.AutoModelForConditionalGeneration.from_pretrained(tmp_path / "directory"),
        keras.models.load_model(tmp_path / "file.keras"),
    ):
        assert again.separator_token_id == SEPARATOR
        np.testing.assert_array_equal(again(source, labels=target).logits, model(source, labels=target).logits)
    plain = tfheads.GPT2LMHeadModel.from_pretrained(tmp_path / "directory")
    prompt = np.pad(source[:1], ((0, 0), (0, 1)), constant_values=SEPARATOR)
    assert plain.generate(prompt, max_new_tokens=6)[0, 7:].tolist() == written[0].tolist()


def test_the_end_of_text_separates_where_the_config_says_nothing_else():
    assert make(separator_token_id=None).separator_token_id == END


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: make(separator_token_id=40), "separator_token_id must be a token id between 0 and 39, got 40"),
        (lambda model: make(eos_token_id=None), "eos_token_id must be a token id between 0 and 39, got None"),
        (lambda model: model(SOURCE, labels=TARGET[:2]), "labels must have the shape of input_ids"),
        (lambda model: model(SOURCE, labels=TARGET[0]), "labels must be whole numbers .batch, target., the tokens"),
        (lambda model: model(SOURCE, labels=TARGET * 1.5), "labels must be whole numbers .batch, target., the tokens"),
        (lambda model: model(SOURCE, labels=TARGET + 40), "labels must be -100 or between 0 and 39"),
        (lambda model: model(SOURCE, token_type_ids=SOURCE), "input 'token_type_ids' is not known"),
        (lambda model: model(SOURCE[:, :0]), "input_ids must have at least one token in a row"),
        (lambda model: model({"attention_mask": MASK}), "give input_ids or inputs_embeds"),
        (
            lambda model: model(token_ids(2, 30), labels=token_ids(2, 4)),
            "at most 32 tokens together, .* got 35",
        ),
        (lambda model: model(token_ids(2, 32)), "must have at most 32 tokens together, .* got 33"),
        (lambda model: model.generate(), "input_ids must be given, the tokens of the sources, got none"),
        (
            lambda model: model.generate(SOURCE, attention_mask=MASK * 0),
            "sources must be .* with a real token in",
        ),
        (lambda model: model.generate(SOURCE, attention_mask=MASK[:, 1:]), "sources must be"),
        (lambda model: model.generate(token_ids(1, 30), max_new_tokens=5), "max_new_tokens"),
    ],
)
def test_bad_input_is_one_sentence(model, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(model)
    assert len(str(error.value).splitlines()) == 1

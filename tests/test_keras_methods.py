"""What models inherit from Keras: it works, or it refuses in one sentence."""

import keras
import numpy as np
import pytest

import tfheads
from tests.tiny_models import bert_config, gpt2_config, token_ids

IDS = token_ids(4, 7)


@pytest.fixture(scope="module")
def bert():
    return tfheads.BertForSequenceClassification.from_config(bert_config(), seed=0)


REFUSED = {
    "quantize": (lambda model, directory: model.quantize("int8"), "quantize is not supported"),
    "export": (lambda model, directory: model.export(directory / "saved"), "use export_serving"),
    "export as ONNX": (lambda model, directory: model.export(directory / "x.onnx", format="onnx"), "export_serving"),
    "save as HDF5": (lambda model, directory: model.save(directory / "x.h5"), "save takes a .keras file, got .*x.h5"),
    "TimeDistributed": (
        lambda model, directory: keras.layers.TimeDistributed(model)(keras.Input((3, 7), dtype="int32")),
        "has no compute_output_shape",
    ),
    "get a state tree": (lambda model, directory: model.get_state_tree(), "would lose weights: use get_weights"),
    "set a state tree": (lambda model, directory: model.set_state_tree({}), "would leave out weights"),
    "dtype policy": (lambda model, directory: setattr(model, "dtype_policy", "bfloat16"), "give dtype to from_pretr"),
    "jit_compile": (lambda model, directory: setattr(model, "jit_compile", True), "an argument of compile"),
    "an unknown attribute": (lambda model, directory: model.roberta, "has no attribute 'roberta'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_do_nothing_refuses(name, bert, tmp_path):
    action, sentence = REFUSED[name]
    with pytest.raises((NotImplementedError, ValueError, AttributeError), match=sentence):
        action(bert, tmp_path)
    assert not list(tmp_path.iterdir())


def test_jit_compile_is_set_by_compile_alone():
    model = tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0)
    for jit_compile in (False, True, False):
        model.compile("sgd", jit_compile=jit_compile)
        assert model.compiled_by_xla is jit_compile
        with pytest.raises(AttributeError, match="an argument of compile"):
            model.jit_compile = False


def test_models_are_not_made_in_a_remat_scope():
    with keras.RematScope(mode="full"), pytest.raises(ValueError, match="gradient_checkpointing_enable"):
        tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0)


def test_a_base_model_is_frozen_as_in_transformers():
    """With BERT's pooler, which stands in the head here and in the base model there."""
    model = tfheads.BertForSequenceClassification.from_config(bert_config(), seed=0)
    model.bert.trainable = False
    assert [variable.name for variable in model.trainable_variables] == ["kernel", "bias"]
    assert model.trainable_variables[0] is model.head.classifier.kernel
    model.compile("sgd", jit_compile=False)
    before = [variable.numpy() for variable in model.base_model.variables]
    model.fit({"input_ids": IDS}, np.array([0, 1, 0, 1]), verbose=0)
    for variable, value in zip(model.bert.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    gpt2 = tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0)
    assert gpt2.transformer.layers == [gpt2.backbone]
    gpt2.transformer.trainable = False
    assert not gpt2.trainable_variables

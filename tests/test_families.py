"""Every family x class x variant against what PyTorch gave: names, weights, logits, losses, gradients, generation."""

import contextlib
import functools
import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import cases, reference, weights
from tests.quick_cases import slow_but_first, slow_but_these
from tfheads import models, registry
from tfheads.checkpoints.attribute_walk import checkpoint_variables
from tfheads.checkpoints.loading import load, plan_loading
from tfheads.checkpoints.saving import tensor_sources

TOLERANCE = 1e-5
CASES = reference.names()
GENERATIVE = [name for name in CASES if "generation" in reference.load(name)]
BACKBONES = [cls for model_type in registry.FAMILIES for cls in registry.backbones_of(model_type)]
TRANSLATING = [name for name in CASES if "translation" in reference.load(name)]
GENERATED = ("gpt2/lm",)
"""Case that generates in the quick tests: loops know no family, and what they call of one is shown of every family."""

PERTURBED = ("gpt2",)
"""The family whose keys and dropouts are perturbed in the quick tests."""

WITH_HEADS = ("gpt2", "bert", "bart", "t5", "llama")
HEADS = ("sequence-classification", "token-classification", "question-answering", "multiple-choice")
"""Heads know no family: the quick tests have all of them on some families, all else but activations on every one."""


def family_of(name: str) -> str:
    return name.split("/")[0]


def task_of(name: str) -> str:
    return getattr(tfheads, reference.load(name)["class"]).task


ACTIVATIONS = ("_activation", "_gelu", "_gelu_new", "_gelu_pytorch_tanh", "_relu", "_silu", "_tanh")


def is_quick(name: str) -> bool:
    return not name.endswith(ACTIVATIONS) and (family_of(name) in WITH_HEADS or task_of(name) not in HEADS)


QUICK = list(filter(is_quick, CASES))


class Stored:
    """A checkpoint in memory."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors

    def names(self):
        return list(self.tensors)

    def shape(self, name):
        return self.tensors[name].shape

    def read(self, name):
        return self.tensors[name]

    def read_rows(self, name, start, stop):
        return self.tensors[name][start:stop]


def config_of(record: dict, **changes) -> transformers.PreTrainedConfig:
    return transformers.AutoConfig.for_model(**{**record["config"], **changes})


def owners_of(record: dict) -> dict[str, str]:
    """The name of each tensor's parameter in PyTorch: another tensor's where two are tied or it is written renamed."""
    written = {entry["name"]: entry["parameter"] for entry in record["exported"] if "parameter" in entry}
    return {name: entry["tied_to"] or name for name, entry in record["parameters"].items()} | written


def echoes_of(model) -> set[str]:
    """The tensors that are written and never used."""
    base = model.family.checkpoint_base(model.task)
    return {alias.name for alias in model.family.table(model.config).aliases_below(base) if alias.written}


def tensors_of(record: dict) -> dict[str, np.ndarray]:
    return {
        name: weights.weight(name, entry["shape"])
        for name, entry in record["parameters"].items()
        if entry["tied_to"] is None and "fixed" not in entry
    }


@functools.lru_cache(8)  # the tests of a case follow each other
def model_of(name: str):
    record = reference.load(name)
    with pytest.warns(UserWarning) if name == "bert/lm_not_decoder" else contextlib.nullcontext():
        model = getattr(tfheads, record["class"]).from_config(config_of(record))
    load(model, Stored(tensors_of(record)))
    return model


def main_output(output) -> np.ndarray:
    return tf.cast(next(iter(output.values())), "float32").numpy()


def arrays(inputs: dict) -> dict[str, np.ndarray]:
    values = {name: np.asarray(value) for name, value in inputs.items()}
    return {name: value.astype("float32" if value.dtype.kind == "f" else "int32") for name, value in values.items()}


def worst_difference(output, record: dict) -> float:
    mask = record["inputs"].get("attention_mask")
    differences = [
        reference.difference(output[name].numpy(), stored, mask) for name, stored in record["outputs"].items()
    ]
    differences += [abs(float(output[name]) - record[name]) for name in ("loss", "mc_loss") if name in record]
    return max(differences)


def test_every_family_has_fixtures_for_every_class():
    recorded = {reference.load(name)["class"] for name in CASES}
    named = {registry.class_names(cls, task)[0] for cls in BACKBONES for task in cls.heads}
    assert recorded == {name for name in named if hasattr(transformers, name)}


@pytest.mark.parametrize("name", slow_but_these(QUICK, CASES), scope="module")
def test_outputs_hidden_states_and_gradients_equal_the_reference_eagerly(name):
    record, model = reference.load(name), model_of(name)
    graded = record["gradients"]["inputs"] if model.criteria else None
    assert graded is None or graded in record["forward"]
    for kind, forward in record["forward"].items():
        with_gradients = kind == graded
        with tf.GradientTape() if with_gradients else contextlib.nullcontext() as tape:
            output = model(**arrays(forward["inputs"]), output_hidden_states=True)
            loss = output.loss + output.get("mc_loss", 0.0) if with_gradients else None
        assert worst_difference(output, forward) < TOLERANCE
        inputs = forward["inputs"]
        real = np.asarray(inputs.get("attention_mask", np.ones_like(inputs["input_ids"]))) == 1
        real = real.reshape(-1, real.shape[-1])  # choices are rows to the backbone
        states = {name: [state.numpy() for state in value] for name, value in output.items() if "states" in name}
        means = [float(state.mean()) for state in reference.hidden_states(states, real)]
        np.testing.assert_allclose(means, forward["hidden_state_means"], atol=TOLERANCE)
        if with_gradients:
            check_gradients(model, record, tape, loss)


def check_gradients(model, record: dict, tape: tf.GradientTape, loss: tf.Tensor) -> None:
    """Every trainable variable gets PyTorch's gradient."""
    variables = {id(v): v.value for v in checkpoint_variables(model)}
    gradients = dict(zip(variables, tape.gradient(loss, list(variables.values())), strict=True))
    prefix = model.family.checkpoint_base(model.task)
    expected, owners = record["gradients"]["sums_of_squares"], owners_of(record)
    seen = set()
    for binding in model.family.table(model.config).bindings(model, prefix):
        if not any(variable.trainable for variable in binding.variables):  # what the loss does not reach
            assert all(expected.get(owners[tensor]) is None for tensor in binding.names)
            seen.update(binding.names)
            continue
        if all(expected[owners[tensor]] is None for tensor in binding.names):  # a decoder alone has no memory to see
            assert all(gradients[id(variable)] is None for variable in binding.variables)
            seen.update(binding.names)
            continue
        values = [tf.convert_to_tensor(gradients[id(variable)]).numpy() for variable in binding.variables]
        for tensor, value in zip(binding.names, binding.operation.to_tensors(values), strict=True):
            np.testing.assert_allclose(np.sum(np.square(value)), expected[owners[tensor]], rtol=1e-3, atol=1e-6)
            seen.add(owners[tensor])
    assert set(expected) - seen <= echoes_of(model)


def grouped(name: str) -> tuple:
    """The family, and whether query heads share keys."""
    config = reference.load(name)["config"]
    heads = config.get("num_attention_heads")
    return family_of(name), config.get("num_key_value_heads", heads) == heads


@pytest.mark.parametrize("name", slow_but_first(CASES, grouped), scope="module")
def test_outputs_equal_the_reference_where_the_graph_knows_no_sizes(name):
    """As in SavedModels, and in `fit` on rows of different lengths: neither batch nor length is known."""
    model, records = model_of(name), reference.load(name)["forward"]
    record = records.get("right_padded") or next(iter(records.values()))
    inputs = {key: tf.constant(value) for key, value in arrays(record["inputs"]).items()}

    def unknown(value):
        widths = value.shape[-1:] if value.dtype.is_floating and value.shape.rank > 2 else []
        return tf.TensorSpec([None] * (value.shape.rank - len(widths)) + [*widths], value.dtype)

    signature = [{key: unknown(value) for key, value in inputs.items()}]
    function = tf.function(lambda given: model(given), input_signature=signature, autograph=False)
    assert worst_difference(function(inputs), record) < TOLERANCE


@pytest.mark.parametrize("name", slow_but_first(CASES, grouped))
def test_a_family_is_exported_without_a_tokenizer(name, tmp_path):
    model = model_of(name)
    model.export_serving(tmp_path, tokenizer=None)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    record = next(iter(reference.load(name)["forward"].values()))
    given, ids = arrays(record["inputs"]), np.asarray(record["inputs"]["input_ids"], "int32")
    others = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids), "decoder_input_ids": ids}
    inputs = {key: given.get(key, others.get(key)) for key in served.structured_input_signature[1]}
    answers, outputs = served(**{key: tf.constant(value) for key, value in inputs.items()}), model(**inputs)
    for key, answer in answers.items():
        np.testing.assert_allclose(answer, outputs[key], atol=TOLERANCE)


@pytest.mark.parametrize("name", slow_but_first(CASES, family_of), scope="module")
def test_logits_and_loss_equal_the_reference_under_xla(name):
    model, records = model_of(name), reference.load(name)["forward"]
    record = records.get("right_padded") or next(iter(records.values()))
    compiled = tf.function(lambda inputs: model(inputs), jit_compile=True, autograph=False)
    assert worst_difference(compiled(arrays(record["inputs"])), record) < TOLERANCE


@pytest.mark.parametrize("name", slow_but_these(QUICK, CASES), scope="module")
def test_import_then_export_is_bit_equal_under_the_reference_names(name):
    record = reference.load(name)
    stored = tensors_of(record)
    written = {source.name: source.read() for source in tensor_sources(model_of(name))}
    assert {n: list(v.shape) for n, v in written.items()} == {e["name"]: e["shape"] for e in record["exported"]}
    echoes, owners = echoes_of(model_of(name)), owners_of(record)
    fixed = {name: entry["fixed"] for name, entry in record["parameters"].items() if "fixed" in entry}
    for tensor, value in written.items():
        if tensor in fixed:
            np.testing.assert_allclose(reference.sampled(value), fixed[tensor], atol=1e-6)
        elif tensor not in echoes:
            np.testing.assert_array_equal(value, stored[owners[tensor]])


@pytest.mark.parametrize("name", slow_but_these(GENERATED, GENERATIVE))
def test_tokens_equal_the_reference_in_padded_batches_and_alone(name):
    record, model = reference.load(name), model_of(name)
    prompts = record["prompts"]
    width = max(map(len, prompts))
    ids = np.array([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = np.array([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    for run in record["generation"]:
        compiled = "num_beams" not in run["settings"]  # other loops under XLA: test_generation_parity
        made = model.generate(ids, attention_mask=mask, **run["settings"], jit_compile=compiled)
        assert made[:, :width].tolist() == ids.tolist()
        assert made[:, width:].tolist() == run["batch"]
        for prompt, alone in zip(prompts, run["alone"], strict=True):
            made = model.generate([prompt], **run["settings"], jit_compile=False)
            assert made[0, len(prompt) :].tolist() == alone


@pytest.mark.parametrize("name", slow_but_these(GENERATED, TRANSLATING))
def test_targets_of_padded_sources_equal_the_reference_and_those_of_sources_alone(name):
    record, model = reference.load(name), model_of(name)
    prompts = record["prompts"]
    width = max(map(len, prompts))
    ids = np.array([prompt + [0] * (width - len(prompt)) for prompt in prompts])
    mask = np.array([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in prompts])
    for run in record["translation"]:
        compiled = "num_beams" not in run["settings"]
        made = model.generate(ids, attention_mask=mask, **run["settings"], jit_compile=compiled)
        assert made.tolist() == run["batch"]
        assert model.generate([prompts[1]], **run["settings"], jit_compile=False).tolist() == [run["alone"][1]]


@pytest.mark.parametrize("name", slow_but_first([*GENERATIVE, *TRANSLATING], family_of))
def test_cached_decoding_equals_the_full_pass(name):
    model = model_of(name)
    ids = np.random.RandomState(0).randint(3, model.vocab_size, (2, 7)).astype("int32")
    source = {"input_ids": tf.constant(ids[:, ::-1])} if model.backbone.encodes_source else {}
    target = {"decoder_input_ids" if source else "input_ids": tf.constant(ids)}
    full = model.backbone({**source, **target}, training=False)["last_hidden_state"].numpy()
    state = model.backbone.decoding_state(source or target, 16)
    hidden, state = model.backbone.extend(
        {"input_ids": tf.constant(ids[:, :4]), "position_ids": tf.range(4)[None]}, state, 0
    )
    steps = [hidden.numpy()]
    for slot in range(4, 7):
        inputs = {"input_ids": tf.constant(ids[:, slot : slot + 1]), "position_ids": tf.constant([[slot]])}
        hidden, state = model.backbone.extend(inputs, state, slot)
        steps.append(hidden.numpy())
    np.testing.assert_allclose(np.concatenate(steps, 1), full, atol=TOLERANCE)


EFFECTS = [(kind, name) for kind in registry.FAMILIES for name in reference.load(f"{kind}/config_effects")]


REFUSED = {
    "GPT2DoubleHeadsModel": ("summary_type",),
    "ElectraForMultipleChoice": ("summary_type", "summary_use_proj"),
    "T5Model": ("is_encoder_decoder",),
    "T5ForConditionalGeneration": ("is_encoder_decoder",),
    "T5ForQuestionAnswering": ("is_encoder_decoder",),
    "T5EncoderModel": ("is_decoder",),
    "T5ForTokenClassification": ("is_decoder",),
    "MT5Model": ("is_encoder_decoder",),
    "MT5ForConditionalGeneration": ("is_encoder_decoder",),
    "MT5EncoderModel": ("is_decoder",),
    "MarianModel": ("decoder_vocab_size",),
}
"""Keys of which a class takes one value alone, where the reference takes several."""


OURS = {"T5ForConditionalGeneration": ("tie_word_embeddings", "scale_decoder_outputs")}
"""Keys that the reference takes otherwise: its new models are tied whatever the config says, checkpoints are not."""


@pytest.mark.parametrize("kind", slow_but_these(PERTURBED, registry.FAMILIES))
def test_each_config_key_has_an_effect_where_the_reference_has_one_or_is_an_error(kind):
    """Each key with the first class on which it has an effect that the classes before it did not show."""
    shown = set()
    for class_name, effects in reference.load(f"{kind}/config_effects").items():
        named = {key: (key, "error" in effect or tuple(effect["changes"])) for key, effect in effects.items()}
        check_effects(kind, class_name, {key: effects[key] for key, what in named.items() if what not in shown})
        shown.update(named.values())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "class_name"), EFFECTS)
def test_each_config_key_has_that_effect_in_every_class(kind, class_name):
    check_effects(kind, class_name, reference.load(f"{kind}/config_effects")[class_name])


def check_effects(kind: str, class_name: str, effects: dict) -> None:
    """Perturbs keys: outputs and parameters must change exactly where PyTorch's do, or the key be refused."""
    small = {"config": {"model_type": kind, **cases.EFFECTS[kind][class_name]}}
    ids = np.random.RandomState(1).randint(3, 40, (2, 9)).astype("int32")
    ids[:, -1] = 0  # padding to those who look for it
    if issubclass(getattr(tfheads, class_name), models.WithChoices):
        ids = np.stack([ids, ids[::-1]], 1)
    before = _traits(class_name, config_of(small), ids)
    refused = {"output_attentions", "return_dict", *REFUSED.get(class_name, ())}
    ours_by_design = {"dtype", *OURS.get(class_name, ())}  # Keras' policy decides, "auto" follows the checkpoint
    effects = {
        key: effect
        for key, effect in effects.items()
        if key not in ours_by_design and effect.get("changes") != ["training"]
    }
    by_itself = {"pretraining_tp", *refused}  # BLOOM's does not go with slow_but_exact
    idle = {k: e["changed_to"] for k, e in effects.items() if e.get("changes") == [] and k not in by_itself}
    if _traits_of_all(class_name, small, idle, ids) == before:  # one model shows it of all that should change nothing
        effects = {key: effect for key, effect in effects.items() if key not in idle}
    for key, effect in effects.items():
        changed = {key: effect["changed_to"]}
        if "error" in effect or key in refused:
            assert key in _refusal(class_name, small, changed), (key, effect)
            continue
        after = _traits(class_name, config_of(small, **changed), ids)
        for trait in ("parameters", "outputs"):
            assert (after[trait] != before[trait]) == (trait in effect["changes"]), (key, trait)


def _traits_of_all(class_name: str, record: dict, changed: dict, ids) -> dict | None:
    """What changes together give; nothing where they do not go together."""
    try:
        return _traits(class_name, config_of(record, **changed), ids)
    except ValueError:
        return None


def _refusal(class_name: str, record: dict, changed: dict) -> str:
    """What is said of a config with changes that no model can have; nothing if one is made."""
    try:
        getattr(tfheads, class_name).from_config(config_of(record, **changed))
    except ValueError as error:
        return str(error)
    return ""


def _dropouts(kind: str) -> dict[str, str]:
    """The keys of a family that the reference reads in training alone, each with a class that reads it."""
    found = dict(OUTSIDE_OF_THE_EFFECTS.get(kind, {}))
    for class_name, effects in reference.load(f"{kind}/config_effects").items():
        keys = [key for key, effect in effects.items() if effect.get("changes") == ["training"]]
        found |= {key: class_name for key in keys if key not in found}
    return found


OUTSIDE_OF_THE_EFFECTS = {"bart": {"classifier_dropout": "BartForSequenceClassification"}}
"""Keys that none of the classes reads whose keys are perturbed."""


@pytest.mark.parametrize("kind", slow_but_these(PERTURBED, registry.FAMILIES))
def test_each_dropout_acts_in_training_and_only_there(kind):
    dropouts = _dropouts(kind)
    assert dropouts or not any("drop" in key for key in transformers.AutoConfig.for_model(kind).to_dict())
    for key, class_name in dropouts.items():
        entries = {"model_type": kind, **cases.EFFECTS[kind].get(class_name, next(iter(cases.EFFECTS[kind].values())))}
        quiet = {**entries, **dict.fromkeys(dropouts, 0.0)}
        if "layerdrop" in key:
            with pytest.raises(ValueError, match=key):
                getattr(tfheads, class_name).from_config(config_of({"config": quiet}, **{key: 0.5}))
            continue
        without, with_it = (_in_training(class_name, quiet, {key: rate}) for rate in (0.0, 0.5))
        assert all(np.array_equal(training, plain) for training, plain in without), key
        assert any(not np.array_equal(training, plain) for training, plain in with_it), key
        assert all(np.array_equal(plain, same) for (_, plain), (_, same) in zip(with_it, without, strict=True)), key


def _in_training(class_name: str, entries: dict, changed: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each output in training and outside of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = getattr(tfheads, class_name).from_config(config_of({"config": entries}, **changed), seed=0)
    ids = np.random.RandomState(1).randint(3, 40, (2, 9)).astype("int32")
    ids[:, -1] = model.config.eos_token_id or 0  # the end, for those that look for it
    choices = isinstance(model, models.WithChoices)
    given = model.backbone.encodes_source and not model.task.endswith(("classification", "answering"))
    target = {"decoder_input_ids": ids[:, :7]} if given else {}
    ids = np.stack([ids, ids[::-1]], 1) if choices else ids
    training, plain = (model(ids, training=flag, **target) for flag in (True, False))
    return [(training[name].numpy(), plain[name].numpy()) for name in plain]


def _traits(class_name: str, config, ids) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = getattr(tfheads, class_name).from_config(config)
    shapes = {source.name: source.shape for source in tensor_sources(model)}
    load(model, Stored({name: weights.weight(name, shape) for name, shape in shapes.items()}))
    given = model.backbone.encodes_source and model.task != "question-answering"
    target = {"decoder_input_ids": ids[:, :7]} if given else {}
    parameters = {**shapes, "variables": [tuple(variable.shape) for variable in checkpoint_variables(model)]}
    return {"parameters": parameters, "outputs": main_output(model(ids, **target)).round(4).tolist()}


@pytest.mark.parametrize("name", ["gpt2/lm", "bert/mlm"])
def test_dropout_keys_change_training_only(name):
    record = reference.load(name)
    dropouts = [key for key in record["config"] if "dropout_prob" in key or key.endswith("_pdrop")]
    assert len(dropouts) >= 2
    ids = np.random.RandomState(1).randint(0, 40, (2, 9)).astype("int32")
    for key in dropouts:
        model = getattr(tfheads, record["class"]).from_config(config_of(record, **{key: 0.5}), seed=0)
        keras.utils.set_random_seed(0)
        quiet, noisy = model(ids).logits.numpy(), model(ids, training=True).logits.numpy()
        assert np.abs(quiet - noisy).max() > 1e-3, key
        np.testing.assert_array_equal(quiet, model(ids).logits.numpy())


@pytest.mark.parametrize("name", ["gpt2/lm", "bert/mlm"])
def test_a_missing_or_unexpected_tensor_is_named(name):
    record = reference.load(name)
    model = getattr(tfheads, record["class"]).from_config(config_of(record))
    tensors = tensors_of(record)
    block = next(tensor for tensor in tensors if ".0." in tensor)
    with pytest.raises(ValueError, match=f"missing {block}"):
        plan_loading(model, Stored({n: v for n, v in tensors.items() if n != block}))
    with pytest.raises(ValueError, match="unexpected surprise"):
        plan_loading(model, Stored({**tensors, "surprise.weight": np.zeros(3, "float32")}))
    with pytest.raises(ValueError, match=f"{block} has the shape"):
        plan_loading(model, Stored({**tensors, block: np.zeros((7, 7), "float32")}))


def test_family_files_are_short():
    for cls in registry.FAMILIES.values():
        assert len(inspect.getsource(inspect.getmodule(cls)).splitlines()) < 150

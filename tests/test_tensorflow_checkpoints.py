"""`tf.train.Checkpoint` holds every variable of a model, once, by a name that follows from the attributes alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import reference
from tests.quick_cases import slow_but_first
from tests.tiny_models import bert_config, gpt2_config, token_ids
from tfheads.layers.checkpoint_children import HasCheckpointChildren
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part
from tfheads.layers.projections import dense
from tfheads.serving.token_level import Bundle

IDS = token_ids(8, 7)
CLASSES = (IDS[:, 0] % 3).astype("int32")
VALUE, COUNTER = "/.ATTRIBUTES/VARIABLE_VALUE", "save_counter"
FIRST_OF_CLASS = {reference.load(name)["class"]: name for name in reversed(reference.names())}.values()


def saved(directory, **parts) -> tuple[str, list[str]]:
    """A checkpoint of some objects, and the names of what is in it."""
    path = tf.train.Checkpoint(**parts).save(directory / "checkpoint")
    names = [name.removesuffix(VALUE) for name, _ in tf.train.list_variables(path) if name.endswith(VALUE)]
    return path, [name for name in names if name != COUNTER]


def assert_same(one, other) -> None:
    for left, right in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())


def classifier(seed: int = 0, **changes):
    config = bert_config(num_labels=3, num_hidden_layers=2, **changes)
    return tfheads.AutoModelForSequenceClassification.from_config(config, seed=seed)


@pytest.mark.parametrize("case", slow_but_first(sorted(FIRST_OF_CLASS), key=lambda name: name.split("/")[0]))
def test_every_variable_of_every_family_is_saved_once_and_restored(case, tmp_path):
    record = reference.load(case)
    config = transformers.AutoConfig.for_model(**record["config"])
    first, second = (getattr(tfheads, record["class"]).from_config(config, seed=seed) for seed in (0, 1))
    path, names = saved(tmp_path, model=first)
    assert len(names) == len(first.variables)
    assert saved(tmp_path / "second", model=second)[1] == names
    tf.train.Checkpoint(model=second).restore(path).assert_consumed()
    assert_same(first, second)
    inputs = Bundle(first).token_level_example()
    one, other = first(inputs), second(inputs)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


WEIGHTS = ("_kernel", "bias")
NAMES_OF_A_BLOCK = [
    *(
        f"attention/{layer}/{name}"
        for layer in ("key", "output_dense", "query", "value")
        for name in ("_kernel", "bias")
    ),
    *(f"feed_forward/{layer}/{name}" for layer in ("down", "up") for name in ("_kernel", "bias")),
]


def test_the_names_are_attributes_and_places(tmp_path):
    """Written down here, they are the same in every process, whatever layers were made before."""
    _, names = saved(tmp_path, model=classifier(hidden_dropout_prob=0.1))
    for place in range(2):
        block = f"model/backbone/stack/blocks/{place}/"
        found = [name.removeprefix(block) for name in names if name.startswith(block)]
        assert set(NAMES_OF_A_BLOCK) <= set(found)
        assert any(name.endswith("/seed_generator") for name in found)


def functional(seed: int) -> keras.Model:
    ids = keras.Input((7,), dtype="int32")
    return keras.Model(ids, keras.layers.Dense(2)(classifier(seed)({"input_ids": ids})["logits"]))


class Subclassed(keras.Model):
    def __init__(self, seed: int):
        super().__init__()
        self.encoder, self.score = classifier(seed), keras.layers.Dense(2)

    def call(self, ids, training=False):
        return self.score(self.encoder(ids, training=training)["logits"])


class TwoTowers(HasCheckpointChildren, keras.Model):
    """A class that keeps models in a dictionary and a list."""

    def __init__(self, seed: int):
        super().__init__()
        self.towers = {"left": [classifier(seed)], "right": [classifier(seed + 10)]}

    def call(self, ids, training=False):
        return sum(tower[0](ids, training=training)["logits"] for tower in self.towers.values())


class States(keras.layers.Layer):
    """The hidden values of a backbone alone."""

    def __init__(self, seed: int):
        super().__init__()
        self.backbone = classifier(seed).backbone

    def call(self, ids, training=False):
        return self.backbone({"input_ids": ids}, training=training)["last_hidden_state"]


def sequential(seed: int) -> keras.Model:
    return keras.Sequential([keras.Input((7,), dtype="int32"), States(seed), keras.layers.Dense(2)])


@pytest.mark.parametrize("make", [functional, sequential, Subclassed, TwoTowers])
def test_models_inside_of_others_are_saved_whole(make, tmp_path):
    first, second = make(0), make(1)
    expected, _ = first(IDS), second(IDS)
    path, names = saved(tmp_path, model=first)
    assert len(names) == len(first.variables)
    tf.train.Checkpoint(model=second).restore(path).assert_consumed()
    np.testing.assert_array_equal(second(IDS), expected)


class Nest(Part):
    """Every way of holding layers and variables."""

    def __init__(self, seed: float):
        super().__init__()

        def layer():
            return dense(1, 1)

        self.nested = [[layer()], {"a": layer(), 3: (layer(), [layer()])}]
        self.pair = (layer(), [layer()])
        self.bare = [self.add_weight(shape=(), name="bare")]
        self.seeds = {"one": keras.random.SeedGenerator(int(seed))}
        self.dropouts, self.nothing, self.plain = [Dropout(0.5)], [], {"rate": [0.5]}
        self.same = [self.pair[0]]
        for place, variable in enumerate(self.variables):
            variable.assign(tf.cast(tf.fill(variable.shape, seed + place), variable.dtype))


def test_containers_in_containers_are_followed(tmp_path):
    first, second = Nest(1.0), Nest(100.0)
    path, names = saved(tmp_path, part=first)
    assert len(names) == len(first.variables)
    expected = ["nested/0/0", "nested/1/a", "nested/1/3/0", "nested/1/3/1/0", "pair/0", "pair/1/0"]
    expected = [f"part/{name}/{weight}" for name in expected for weight in ("_kernel", "bias")]
    expected += ["part/bare/0", "part/seeds/one", "part/dropouts/0/seed_generator"]
    assert sorted(names) == sorted(expected)
    tf.train.Checkpoint(part=second).restore(path).assert_consumed()
    assert_same(first, second)


def test_a_set_of_layers_is_refused(tmp_path):
    layer = Part()
    layer.norms = {dense(1, 1)}
    with pytest.raises(ValueError, match="norms must be a list or a dictionary to be saved in a checkpoint, got a set"):
        saved(tmp_path, layer=layer)


def test_a_run_goes_on_with_its_optimizer(tmp_path):
    """Also where the optimizer has no variables yet when it is restored."""

    def compiled(seed):
        model = tfheads.AutoModelForSequenceClassification.from_config(
            bert_config(num_labels=3, hidden_dropout_prob=0.1), seed=seed
        )
        model.compile(tfheads.AdamW(1e-2), metrics=["accuracy"], jit_compile=False)
        return model

    first, second, third = map(compiled, range(3))
    first.fit({"input_ids": IDS}, CLASSES, verbose=0)
    path, names = saved(tmp_path, model=first, optimizer=first.optimizer)
    assert len(names) == len(first.variables) + len(first.optimizer.variables)
    second.optimizer.build(second.trainable_variables)
    for model in (second, third):
        status = tf.train.Checkpoint(model=model, optimizer=model.optimizer).restore(path)
        model.optimizer.build(model.trainable_variables)
        status.assert_consumed()
        assert_same(model, first)
        assert_same(model.optimizer, first.optimizer)
    again = [model.fit({"input_ids": IDS}, CLASSES, shuffle=False, verbose=0).history for model in (first, second)]
    assert again[0] == again[1]


def test_a_checkpoint_of_a_run_is_restored_into_a_model_alone(tmp_path):
    first, second = classifier(0), classifier(1)
    first.compile("adam", jit_compile=False)
    first.fit({"input_ids": IDS}, CLASSES, verbose=0)
    path, _ = saved(tmp_path, model=first)
    tf.train.Checkpoint(model=second).restore(path).assert_existing_objects_matched()
    assert_same(first, second)


def test_a_manager_saves_and_goes_on(tmp_path):
    first, second = classifier(0), classifier(1)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(first), str(tmp_path), max_to_keep=2)
    for value in range(3):
        first.backbone.stack.blocks[1].attention.key.kernel.assign_add(np.full((16, 16), value, "float32"))
        manager.save()
    assert len(manager.checkpoints) == 2
    found = tf.train.CheckpointManager(tf.train.Checkpoint(second), str(tmp_path), max_to_keep=2)
    assert found.restore_or_initialize() == manager.latest_checkpoint
    assert_same(first, second)


def test_adapters_are_saved_while_they_are_there(tmp_path):
    first, second, late = classifier(0), classifier(1), classifier(2)
    plain = saved(tmp_path / "plain", model=first)[1]
    first.enable_lora(rank=2, dropout=0.1, seed=0)
    for variable in first.trainable_variables:
        variable.assign_add(np.ones(variable.shape, "float32"))
    path, names = saved(tmp_path / "adapted", model=first)
    assert len(names) == len(first.variables) > len(plain)
    second.enable_lora(rank=2, dropout=0.1, seed=1)
    tf.train.Checkpoint(model=second).restore(path).assert_consumed()
    status = tf.train.Checkpoint(model=late).restore(path)
    late.enable_lora(rank=2, dropout=0.1, seed=2)  # what waits is restored when its layer comes
    status.assert_consumed()
    assert_same(first, second)
    assert_same(first, late)
    first.remove_adapter()
    assert saved(tmp_path / "removed", model=first)[1] == plain


def test_replicas_save_what_one_device_restores(tmp_path):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        first = classifier(0, hidden_dropout_prob=0.1)
    second = classifier(1, hidden_dropout_prob=0.1)
    path, names = saved(tmp_path, model=first)
    assert len(names) == len(first.variables)
    tf.train.Checkpoint(model=second).restore(path).assert_consumed()
    assert_same(first, second)


def test_generation_and_a_file_of_keras_change_no_names(tmp_path):
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(resid_pdrop=0.1), seed=0)
    _, before = saved(tmp_path / "before", model=model)
    model.generate(IDS[:1], max_new_tokens=2, jit_compile=False)
    model.save(tmp_path / "model.keras")
    path, after = saved(tmp_path / "after", model=model)
    again = keras.saving.load_model(tmp_path / "model.keras")
    again.backbone.stack.blocks[0].attention.key.kernel.assign(np.zeros((16, 16)))
    tf.train.Checkpoint(model=again).restore(path).assert_consumed()
    assert before == after and len(after) == len(model.variables)
    assert_same(model, again)


def test_a_saved_model_of_a_module_that_holds_a_model_has_its_weights_alone(tmp_path):
    module, model = tf.Module(), classifier(hidden_dropout_prob=0.1)
    module.model = model
    module.classify = tf.function(
        lambda ids: model(ids)["logits"], input_signature=[tf.TensorSpec([None, None], "int32")], autograph=False
    )
    saved(tmp_path / "checkpoint", model=model)  # leaves nothing in what is exported
    tf.saved_model.save(module, tmp_path / "saved")
    stored = tf.train.list_variables(tmp_path / "saved/variables/variables")
    assert len([name for name, _ in stored if name.endswith(VALUE)]) == len(model.weights)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.classify(IDS), model(IDS)["logits"], atol=1e-6)

"""AdamW against its formula, schedules against transformers' formulas, and what survives a `.keras` file."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests import tiny_models
from tfheads.optimizers import AdamW, create_optimizer, create_optimizer_and_schedule, rounded_by_chance
from tfheads.schedules import SCHEDULES, create_schedule

PEAK, WARM_UP, STEPS = 3e-4, 10, 73


def linear(step):
    return (STEPS - step) / (STEPS - WARM_UP)


def progress(step):
    return (step - WARM_UP) / (STEPS - WARM_UP)


def cosine(step):
    return 0.5 * (1 + math.cos(math.pi * progress(step)))


FORMULAS = {
    "linear": ({}, linear),
    "cosine": ({}, cosine),
    "cosine_with_min_lr": ({"min_lr_rate": 0.1}, lambda step: cosine(step) * 0.9 + 0.1),
    "cosine_warmup_with_min_lr": (
        {"min_lr": 3e-5, "num_cycles": 1.5},
        lambda step: 0.9 * 0.5 * (1 + math.cos(3 * math.pi * min(1, progress(step + 1)))) + 0.1,
    ),
    "cosine_with_restarts": (
        {"num_cycles": 3},
        lambda step: 0 if step >= STEPS else 0.5 * (1 + math.cos(math.pi * ((3 * progress(step)) % 1.0))),
    ),
    "polynomial": (
        {"lr_end": 1e-6, "power": 2.0},
        lambda step: ((PEAK - 1e-6) * (1 - progress(step)) ** 2 + 1e-6) / PEAK,
    ),
    "constant": ({}, lambda step: 1),
    "constant_with_warmup": ({}, lambda step: 1),
    "inverse_sqrt": ({"timescale": 20}, lambda step: 1 / math.sqrt((step + 20 - WARM_UP) / 20)),
    "warmup_stable_decay": (
        {"num_decay_steps": 20},
        lambda step: 1 if step < STEPS - 20 else 0.5 * (1 + math.cos(math.pi * (step - STEPS + 20) / 20)),
    ),
}
WARM_UPS = {"constant": lambda step: 1, "cosine_warmup_with_min_lr": lambda step: (step + 1) / WARM_UP}
"""The part of the highest rate before step WARM_UP, where it is not a straight line from 0."""


def test_every_schedule_has_a_formula():
    assert set(FORMULAS) == set(SCHEDULES)


@pytest.mark.parametrize("name", FORMULAS)
def test_schedule_equals_transformers_at_every_step(name):
    options, formula = FORMULAS[name]
    schedule = create_schedule(name, PEAK, num_train_steps=STEPS, warmup_steps=WARM_UP, **options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    rises = WARM_UPS.get(name, lambda step: step / WARM_UP)
    expected = [PEAK * (rises(step) if step < WARM_UP else formula(step)) for step in range(STEPS + 1)]
    steps = tf.range(STEPS + 1, dtype=tf.int64)  # all at once: one by one takes a second
    np.testing.assert_allclose(schedule(steps), expected, rtol=1e-6, atol=1e-14)
    np.testing.assert_array_equal(again(steps), schedule(steps))
    assert float(schedule(40)) == float(schedule(steps)[40])


@pytest.mark.parametrize(
    ("name", "options", "step", "expected"),
    [
        ("cosine", {"num_cycles": 1.0}, 41.5, 0.0),
        ("cosine_with_min_lr", {"min_lr": 3e-5}, 73, 0.1),
        ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.28}, 5, 0.28 + 0.72 * 5 / 9),
        ("inverse_sqrt", {}, 40, 0.5),  # the warm-up of 10 steps is the time scale
        ("warmup_stable_decay", {"num_decay_steps": 20, "min_lr_ratio": 0.2}, 5, 0.6),
        ("warmup_stable_decay", {"num_decay_steps": 20, "warmup_type": "cosine"}, 5, 0.5),
        ("warmup_stable_decay", {"num_decay_steps": 20, "warmup_type": "1-sqrt"}, 6.4, 0.4),
        ("warmup_stable_decay", {"num_decay_steps": 20, "decay_type": "linear", "min_lr_ratio": 0.2}, 58, 0.8),
        ("warmup_stable_decay", {"num_decay_steps": 20, "decay_type": "1-sqrt"}, 58, 0.5),
        ("warmup_stable_decay", {"num_decay_steps": 20, "num_cycles": 1.0}, 63, 0.0),
        ("warmup_stable_decay", {"num_decay_steps": 20, "num_stable_steps": 10, "min_lr_ratio": 0.2}, 40, 0.2),
        ("warmup_stable_decay", {"num_decay_steps": 20, "num_stable_steps": 10}, 30, 0.5),
    ],
)
def test_options_of_schedules(name, options, step, expected):
    schedule = create_schedule(name, PEAK, num_train_steps=STEPS, warmup_steps=WARM_UP, **options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert float(schedule(step)) == pytest.approx(PEAK * expected, rel=1e-6, abs=1e-14)
    assert float(again(step)) == float(schedule(step))


def test_the_first_update_has_a_rate_of_zero_with_warm_up_only():
    assert float(create_schedule("linear", PEAK, num_train_steps=9, warmup_steps=2)(0)) == 0.0
    assert float(create_schedule("linear", PEAK, num_train_steps=9)(0)) == np.float32(PEAK)


def test_a_run_past_its_end_stays_at_the_lowest_rate():
    for name in ("linear", "cosine", "cosine_with_restarts", "warmup_stable_decay"):
        options = {"num_decay_steps": 3} if name == "warmup_stable_decay" else {}
        assert float(create_schedule(name, PEAK, num_train_steps=9, **options)(50)) == pytest.approx(0.0, abs=1e-12)


def test_warm_up_may_be_a_ratio():
    assert create_optimizer(1e-3, num_train_steps=101, warmup_ratio=0.1)._learning_rate.warmup_steps == 11
    assert create_optimizer(1e-3, num_train_steps=100, warmup_steps=0.2)._learning_rate.warmup_steps == 20
    assert (
        create_optimizer(1e-3, num_train_steps=100, warmup_steps=7, warmup_ratio=0.5)._learning_rate.warmup_steps == 7
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"lr_scheduler_type": "liner"}, "'liner' is not known, the nearest is 'linear'"),
        ({}, "num_train_steps must be 1 or more"),
        ({"num_train_steps": 9, "warmup_ratio": 2}, "warmup_ratio must be between 0 and 1, got 2"),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.1}, "num_train_steps must be given"),
        ({"num_train_steps": 9, "lr_scheduler_kwargs": {"power": 2}}, "does not have these options: power"),
        ({"num_train_steps": 9, "lr_scheduler_kwargs": {"power": 2}}, "power; it has none"),
        (
            {"num_train_steps": 9, "lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"powr": 2}},
            "powr; it has lr_end, power",
        ),
        (
            {"num_train_steps": 9, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "two"}},
            "num_cycles in lr_scheduler_kwargs must be a number, got 'two'",
        ),
        (
            {"num_train_steps": 9, "lr_scheduler_type": "cosine_with_min_lr"},
            "cosine_with_min_lr must have either min_lr or min_lr_rate, got {}",
        ),
        ({"num_train_steps": 9, "lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps must be given"),
        (
            {
                "num_train_steps": 9,
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 3, "decay_type": "sqrt"},
            },
            "decay_type must be one of linear, cosine, 1-sqrt, got 'sqrt'",
        ),
        ({"num_train_steps": 9, "optim": "lamb"}, "optim must be one of adamw_torch, .*, got 'lamb'"),
        ({"num_train_steps": 9, "weight_decay": -1}, "weight_decay must be 0 or more, got -1"),
        ({"num_train_steps": 9, "learning_rate": -1.0}, "learning_rate must be 0 or more, got -1.0"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        create_optimizer(**arguments)


def adamw(weight, gradients, rate, decay, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """PyTorch's update in float64."""
    moment = velocity = 0.0
    for step, gradient in enumerate(gradients, 1):
        weight = weight * (1 - rate * decay)
        moment = beta_1 * moment + (1 - beta_1) * gradient
        velocity = beta_2 * velocity + (1 - beta_2) * gradient**2
        weight = weight - rate / (1 - beta_1**step) * moment / (np.sqrt(velocity / (1 - beta_2**step)) + epsilon)
    return weight


def run(optimizer, variables, gradients):
    step = tf.function(lambda *grads: optimizer.apply(list(grads), variables))
    for grads in zip(*gradients, strict=True):
        step(*[tf.constant(grad, "float32") for grad in grads])
    return [np.asarray(tf.cast(variable.value, "float64")) for variable in variables]


def values(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
def test_update_equals_pytorch_and_decays_matrices_only(epsilon):
    matrix, vector = values(3, 4), values(4, seed=1)
    gradients = [values(5, 3, 4, seed=2), values(5, 4, seed=3)]
    variables = [keras.Variable(matrix, dtype="float32"), keras.Variable(vector, dtype="float32")]
    results = run(AdamW(0.1, weight_decay=0.3, epsilon=epsilon), variables, gradients)
    np.testing.assert_allclose(results[0], adamw(matrix, gradients[0], 0.1, 0.3, epsilon=epsilon), rtol=2e-5)
    np.testing.assert_allclose(results[1], adamw(vector, gradients[1], 0.1, 0.0, epsilon=epsilon), rtol=2e-5)


def lion(weight, gradients, rate, decay, beta_1=0.9, beta_2=0.99):
    """bitsandbytes' update, which transformers takes for lion_32bit."""
    moment = 0.0
    for gradient in gradients:
        direction = np.sign(beta_1 * moment + (1 - beta_1) * gradient)
        weight = weight * (1 - rate * decay) - rate * direction
        moment = beta_2 * moment + (1 - beta_2) * gradient
    return weight


def sgd(weight, gradients, rate, decay):
    """PyTorch's update, where the decay is a part of the gradient."""
    for gradient in gradients:
        weight = weight - rate * (gradient + decay * weight)
    return weight


def adafactor(weight, gradients, rate, decay):
    """transformers' update, with the settings of its Trainer."""
    rows = columns = whole = 0.0
    for step, gradient in enumerate(gradients, 1):
        beta = 1.0 - step**-0.8
        squares = gradient**2 + 1e-30
        if gradient.ndim == 2:
            rows = beta * rows + (1 - beta) * squares.mean(-1)
            columns = beta * columns + (1 - beta) * squares.mean(-2)
            update = gradient / np.sqrt(rows / rows.mean())[:, None] / np.sqrt(columns)
        else:
            whole = beta * whole + (1 - beta) * squares
            update = gradient / np.sqrt(whole)
        update = update / max(1.0, np.sqrt((update**2).mean()))
        weight = weight * (1 - rate * decay) - rate * update
    return weight


@pytest.mark.parametrize(("name", "formula"), [("lion_32bit", lion), ("sgd", sgd), ("adafactor", adafactor)])
def test_other_optimizers_equal_transformers(name, formula):
    matrix, vector = values(3, 4), values(4, seed=1)
    gradients = [values(5, 3, 4, seed=2), values(5, 4, seed=3)]
    options = {"lr_scheduler_type": "constant", "weight_decay": 0.3, "max_grad_norm": None, "optim": name}
    optimizer = create_optimizer(0.1, **options, **({"adam_beta2": 0.99} if name == "lion_32bit" else {}))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()
    variables = [keras.Variable(matrix, dtype="float32"), keras.Variable(vector, dtype="float32")]
    results = run(again, variables, gradients)
    np.testing.assert_allclose(results[0], formula(matrix, gradients[0], 0.1, 0.3), rtol=2e-5)
    np.testing.assert_allclose(results[1], formula(vector, gradients[1], 0.1, 0.0), rtol=2e-5)
    if name == "adafactor":  # rows and columns of the matrix
        assert sorted(tuple(one.shape) for squares in again._squares for one in squares) == [(3,), (4,), (4,)]


def test_bfloat16_variables_move():
    matrix, gradients = values(3, 4), [values(5, 3, 4, seed=2)]
    (result,) = run(AdamW(0.1), [keras.Variable(matrix, dtype="bfloat16")], gradients)
    np.testing.assert_allclose(result, adamw(matrix, gradients[0], 0.1, 0.0), atol=0.03)


@pytest.mark.slow
def test_moments_in_half_the_memory_learn_as_well(tmp_path):
    """With plain rounding the velocity, which changes by a thousandth at a step, would stand still."""

    def trained(moments_dtype):
        model = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(), seed=0)
        model.compile(AdamW(1e-2, weight_decay=0.01, moments_dtype=moments_dtype))
        ids = tiny_models.token_ids(8, 9)
        batch = {"input_ids": ids, "labels": ids}
        return model, [float(np.ravel(model.train_on_batch(batch))[0]) for _ in range(60)]

    full, losses = trained("float32")
    half, close = trained("bfloat16")
    assert losses[-1] < 0.4 * losses[0] and abs(close[-1] - losses[-1]) < 0.1 * losses[0]
    moments = [one for one in half.optimizer.variables if one.name.endswith(("_momentum", "_velocity"))]
    assert len(moments) == 2 * len(half.trainable_variables)
    assert {one.dtype for one in moments} == {"bfloat16"}
    sums = [
        [np.asarray(one.numpy(), "float32").sum() for one in model.optimizer.variables if "_velocity" in one.name]
        for model in (full, half)
    ]
    ratio = np.divide(*sums)
    assert np.all((ratio > 0.5) & (ratio < 2.0))
    half.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.moments_dtype == "bfloat16"
    for one, other in zip(half.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(one.numpy()), np.asarray(other.numpy()))
    for bad in ({"moments_dtype": "float16"}, {"moments_dtype": "bfloat16", "amsgrad": True}):
        with pytest.raises(ValueError, match="moments_dtype must be"):
            AdamW(**bad)


def test_rounding_by_chance_keeps_the_mean():
    values = tf.fill([100_000], 1.0 + 2**-10)  # an eighth of the way to the next number
    rounded = tf.cast(rounded_by_chance(values, tf.constant([1, 2], tf.uint32)), tf.float32).numpy()
    assert set(np.unique(rounded)) == {1.0, 1.0 + 2**-7}
    assert abs((rounded > 1).mean() - 0.125) < 0.005


def test_gradients_are_clipped_together():
    start, gradients = values(3, 4), values(1, 3, 4, seed=2)
    optimizer = create_optimizer(0.1, lr_scheduler_type="constant", max_grad_norm=0.5, adam_epsilon=1.0)
    (result,) = run(optimizer, [keras.Variable(start, dtype="float32")], [gradients])
    clipped = gradients * 0.5 / np.linalg.norm(gradients)
    np.testing.assert_allclose(result, adamw(start, clipped, 0.1, 0.0, epsilon=1.0), rtol=1e-5)


@pytest.mark.parametrize("when", ["before", "after"])
def test_excluded_variables_do_not_decay(when):
    first, second = (keras.Variable(values(3, 4), dtype="float32") for _ in range(2))
    optimizer = AdamW(0.1, weight_decay=0.5)
    if when == "before":
        optimizer.exclude_from_weight_decay(var_list=[second])
    optimizer.build([first, second])
    if when == "after":
        optimizer.exclude_from_weight_decay(var_list=[second])
    results = run(optimizer, [first, second], [np.zeros((1, 3, 4))] * 2)
    np.testing.assert_allclose(results[0], values(3, 4) * 0.95, rtol=1e-6)
    np.testing.assert_array_equal(results[1], values(3, 4).astype("float32"))


def test_keras_file_keeps_schedule_exclusion_and_moments(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    optimizer = create_optimizer(0.1, num_train_steps=20, warmup_steps=2, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1].kernel])
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    x, y = values(8, 4), values(8, 2, seed=1)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.get_config()["excluded_from_weight_decay"] == [2]
    for each in (model, loaded):
        each.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_former_helper_of_transformers():
    optimizer, schedule = create_optimizer_and_schedule(1e-3, 100, 10, min_lr_ratio=0.1, weight_decay_rate=0.01)
    assert optimizer._learning_rate is schedule and optimizer.weight_decay == 0.01
    assert [float(schedule(step)) for step in (0, 5, 10, 55, 100)] == pytest.approx([0, 5e-4, 1e-3, 5.5e-4, 1e-4])

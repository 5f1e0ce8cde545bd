"""What becomes of the recipes' flags: each one's value where it arrives, without a training."""

import types

import pytest
import tensorflow as tf

from tfheads.callbacks.progress_log import is_due
from tfheads.recipes.arguments import CausalLanguageModellingArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.run_log import RunLog
from tfheads.recipes.training import TrainingRun


def parsed(cls: type, **changes):
    """Arguments from flags, all of which are given as text."""
    values = {"model_name_or_path": "model", "train_file": "a.txt", "output_dir": "out", "do_train": "true", **changes}
    return parse(cls, [f"--{name}={value}" for name, value in values.items() if value is not None])


def causal(**changes) -> CausalLanguageModellingArguments:
    return parsed(CausalLanguageModellingArguments, **changes)


class StandIn:
    """A model that keeps what it was told."""

    rematerialises = False

    def compile(self, **options):
        self.compiled = options

    def gradient_checkpointing_enable(self):
        self.rematerialises = True


def run_of(arguments, **changes) -> TrainingRun:
    """A run of 10 updates an epoch on no data."""
    values = {"batches": None, "updates_per_epoch": 10, "evaluation": None, "train_rows": 0, "dataset": []}
    return TrainingRun(arguments, StandIn(), None, **{**values, **changes})


def test_the_optimizer():
    adam = {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-4, "max_grad_norm": 0.5, "weight_decay": 0.3}
    course = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": "lr_end=1e-6,power=2", "warmup_ratio": 0.1}
    optimizer = run_of(causal(learning_rate=1e-3, **adam, **course)).model.compiled["optimizer"]
    found = {name: getattr(optimizer, name) for name in ("weight_decay", "beta_1", "beta_2", "epsilon")}
    assert found == {"weight_decay": 0.3, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-4}
    assert optimizer.global_clipnorm == 0.5
    schedule = {"learning_rate": 1e-3, "warmup_steps": 3, "num_train_steps": 30, "lr_end": 1e-6, "power": 2}
    assert optimizer._learning_rate.get_config() == schedule
    assert run_of(causal(max_grad_norm=0)).model.compiled["optimizer"].global_clipnorm is None
    steps = {"max_steps": 7, "warmup_steps": 2, "lr_scheduler_type": "constant_with_warmup"}
    schedule = run_of(causal(**steps)).model.compiled["optimizer"]._learning_rate
    assert schedule.get_config() == {"learning_rate": 5e-5, "warmup_steps": 2, "num_train_steps": 7}


def test_how_a_step_is_compiled():
    model = run_of(causal(steps_per_execution=5, gradient_accumulation_steps=2, jit_compile="false")).model
    del model.compiled["optimizer"]
    assert model.compiled == {"steps_per_execution": 5, "gradient_accumulation_steps": 2, "jit_compile": False}
    assert not model.rematerialises
    for name in ("gradient_checkpointing", "activation_checkpointing"):
        assert run_of(causal(**{name: "true"})).model.rematerialises


def test_an_evaluation_needs_no_optimizer():
    course = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": '{"num_decay_steps": 50}'}
    with pytest.raises(ValueError, match="num_decay_steps must be between 0 and the 30 steps"):
        run_of(causal(**course))
    assert run_of(causal(**course, do_train="false", do_eval="true")).model.compiled["optimizer"] is None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"logging_steps": 10}, [10, 20]),
        ({"logging_steps": 10, "logging_first_step": "true"}, [1, 10, 20]),
        ({"logging_strategy": "no"}, []),
        ({"logging_strategy": "no", "logging_first_step": "true"}, [1]),
        ({"logging_strategy": "epoch", "logging_steps": 3}, [10, 20, 25]),  # the last epoch ends early
    ],
)
def test_the_log_has_transformers_entries(flags, expected, tmp_path):
    run = run_of(causal(report_to="tensorboard", max_steps=25, output_dir=tmp_path, **flags))
    (tracker,) = run._make_trackers()
    of_tracker = {"every": tracker.logging_steps, "also": tracker.logging_also}
    assert [step for step in range(1, 26) if is_due(step - 1, step, **of_tracker)] == expected
    log = RunLog(tmp_path, steps_per_epoch=10, **run._logged_updates())
    step, losses = tf.Variable(0), types.SimpleNamespace(total=tf.Variable(0.0), count=tf.Variable(0.0))
    optimizer = types.SimpleNamespace(iterations=step, learning_rate=1e-3)
    log.set_model(types.SimpleNamespace(optimizer=optimizer, _loss_tracker=losses))
    log.begin(0)
    for number in range(25):
        log.on_train_batch_begin(number)
        losses.total.assign_add(number)
        losses.count.assign_add(1.0)
        step.assign_add(1)
        log.on_train_batch_end(number)
    assert [entry["step"] for entry in log.entries] == expected
    for before, entry in zip([0, *expected], log.entries, strict=False):
        assert entry["loss"] == pytest.approx((before + entry["step"] - 1) / 2)  # the mean since the last entry

"""Learning rates over the steps of a run: warm-up from zero, then one of transformers' decays.

At step s (counted from 0, so that step 0 is the first update) each schedule gives what PyTorch's `get_scheduler` gives
the update with the same number. With a warm-up the rate of the first update is 0 (but for
`cosine_warmup_with_min_lr`): that update fills the moments of the optimizer and moves no weight.
"""

import difflib
import inspect
import math
from collections.abc import Mapping

import keras
import tensorflow as tf


class WarmUpSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in a straight line from 0, then follows `factor`.

    Args:
        learning_rate: the highest rate, which the warm-up reaches at step `warmup_steps`.
        warmup_steps: how many updates have a lower rate first.
        num_train_steps: the number of updates in the run, warm-up included.

    Raises:
        ValueError: a negative number, or a decay that does not know its `num_train_steps`.
    """

    needs_the_end = True

    def __init__(self, learning_rate: float, warmup_steps: int = 0, num_train_steps: int | None = None):
        if learning_rate < 0:
            raise ValueError(f"learning_rate must be 0 or more, got {learning_rate}")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, got {warmup_steps}")
        if self.needs_the_end and (num_train_steps is None or num_train_steps < 1):
            raise ValueError(f"num_train_steps must be 1 or more for {type(self).__name__}, got {num_train_steps}")
        self.learning_rate = float(learning_rate)
        self.warmup_steps = int(warmup_steps)
        self.num_train_steps = num_train_steps

    def __call__(self, step):
        """The learning rate of update `step`, a float32 scalar."""
        step = tf.cast(step, tf.float64)  # float32 would lose digits near the end of a cosine
        factor = tf.where(step < self.warmup_steps, self.warm_up(step), self.factor(step))
        return tf.cast(self.learning_rate * factor, tf.float32)

    def warm_up(self, step):
        """The part of `learning_rate` before step `warmup_steps`, a float64 scalar; called for any step."""
        return step / max(1, self.warmup_steps)

    def factor(self, step):
        """The part of `learning_rate` that is left at `step`, a float64 scalar; called for any step."""
        raise NotImplementedError

    def progress(self, step):
        """How much of the run after the warm-up is over, from 0 to 1."""
        length = max(1, self.num_train_steps - self.warmup_steps)
        return tf.clip_by_value((step - self.warmup_steps) / length, 0.0, 1.0)

    def get_config(self) -> dict:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "num_train_steps": self.num_train_steps,
        }


def _registered(cls: type) -> type:
    return keras.saving.register_keras_serializable("tfheads")(cls)


@_registered
class Constant(WarmUpSchedule):
    """The same rate throughout after the warm-up."""

    needs_the_end = False

    def factor(self, step):
        return tf.ones_like(step)


@_registered
class Linear(WarmUpSchedule):
    """A straight line down to 0 at the end of the run."""

    def factor(self, step):
        return 1.0 - self.progress(step)


@_registered
class Cosine(WarmUpSchedule):
    """Waves of a cosine down to a lowest rate; by default half a wave.

    Args:
        num_cycles: the number of waves.
        min_lr: the lowest rate.
    """

    def __init__(self, learning_rate, warmup_steps=0, num_train_steps=None, num_cycles=0.5, min_lr=0.0):
        super().__init__(learning_rate, warmup_steps, num_train_steps)
        if not 0 <= min_lr <= learning_rate:
            raise ValueError(f"min_lr must be between 0 and learning_rate={learning_rate}, got {min_lr}")
        self.num_cycles = num_cycles
        self.min_lr = min_lr

    def factor(self, step):
        lowest = self.min_lr / self.learning_rate if self.learning_rate else 0.0
        wave = 0.5 * (1.0 + tf.cos(math.pi * self.num_cycles * 2.0 * self.progress(step)))
        return wave * (1.0 - lowest) + lowest

    def get_config(self) -> dict:
        return {**super().get_config(), "num_cycles": self.num_cycles, "min_lr": self.min_lr}


@_registered
class CosineFromFirstStep(Cosine):
    """A cosine down to a lowest rate that is one update ahead: the first has a rate, and the last the lowest.

    Args:
        warmup_lr_rate: the part of the highest rate that the warm-up begins with; None for that of one step of it.
    """

    def __init__(
        self, learning_rate, warmup_steps=0, num_train_steps=None, num_cycles=0.5, min_lr=0.0, warmup_lr_rate=None
    ):
        super().__init__(learning_rate, warmup_steps, num_train_steps, num_cycles, min_lr)
        self.warmup_lr_rate = warmup_lr_rate

    def warm_up(self, step):
        if self.warmup_lr_rate is None:
            return (step + 1.0) / max(1, self.warmup_steps)
        return self.warmup_lr_rate + (1.0 - self.warmup_lr_rate) * step / max(1, self.warmup_steps - 1)

    def progress(self, step):
        return super().progress(step + 1.0)

    def get_config(self) -> dict:
        return {**super().get_config(), "warmup_lr_rate": self.warmup_lr_rate}


@_registered
class CosineWithRestarts(WarmUpSchedule):
    """Half waves of a cosine down to 0, each starting again from the top.

    Args:
        num_cycles: the number of half waves.
    """

    def __init__(self, learning_rate, warmup_steps=0, num_train_steps=None, num_cycles=1):
        super().__init__(learning_rate, warmup_steps, num_train_steps)
        self.num_cycles = num_cycles

    def factor(self, step):
        progress = self.progress(step)
        wave = 0.5 * (1.0 + tf.cos(math.pi * tf.math.floormod(self.num_cycles * progress, 1.0)))
        return tf.where(progress >= 1.0, tf.zeros_like(wave), wave)

    def get_config(self) -> dict:
        return {**super().get_config(), "num_cycles": self.num_cycles}


@_registered
class Polynomial(WarmUpSchedule):
    """A power of the part of the run that is left, down to a lowest rate at the end.

    Args:
        lr_end: the lowest rate.
        power: 1 for a straight line.
    """

    def __init__(self, learning_rate, warmup_steps=0, num_train_steps=None, lr_end=1e-7, power=1.0):
        super().__init__(learning_rate, warmup_steps, num_train_steps)
        if not 0 <= lr_end <= learning_rate:
            raise ValueError(f"lr_end must be between 0 and learning_rate={learning_rate}, got {lr_end}")
        self.lr_end = lr_end
        self.power = power

    def factor(self, step):
        lowest = self.lr_end / self.learning_rate if self.learning_rate else 0.0
        return (1.0 - lowest) * (1.0 - self.progress(step)) ** self.power + lowest

    def get_config(self) -> dict:
        return {**super().get_config(), "lr_end": self.lr_end, "power": self.power}


@_registered
class InverseSquareRoot(WarmUpSchedule):
    """The inverse square root of the step.

    Args:
        timescale: the number of steps that divides; None for `warmup_steps`, or 10,000 without a warm-up.
    """

    needs_the_end = False

    def __init__(self, learning_rate, warmup_steps=0, num_train_steps=None, timescale=None):
        super().__init__(learning_rate, warmup_steps, num_train_steps)
        self.timescale = timescale

    def factor(self, step):
        timescale = self.timescale or self.warmup_steps or 10_000
        return tf.math.rsqrt((tf.maximum(step - self.warmup_steps, 0.0) + timescale) / timescale)

    def get_config(self) -> dict:
        return {**super().get_config(), "timescale": self.timescale}


@_registered
class WarmUpStableDecay(WarmUpSchedule):
    """Constant after the warm-up, then down to a lowest rate.

    Args:
        num_decay_steps: how many steps decay.
        num_stable_steps: how many are constant; None for those between the warm-up and the last `num_decay_steps`.
        warmup_type, decay_type: "linear", "cosine" or "1-sqrt".
        min_lr_ratio: the lowest rate, also that of the first update, as a part of the highest.
        num_cycles: the number of waves of a decay by cosine.
    """

    TYPES = ("linear", "cosine", "1-sqrt")

    def __init__(
        self,
        learning_rate,
        warmup_steps=0,
        num_train_steps=None,
        num_decay_steps=None,
        num_stable_steps=None,
        warmup_type="linear",
        decay_type="cosine",
        min_lr_ratio=0.0,
        num_cycles=0.5,
    ):
        super().__init__(learning_rate, warmup_steps, num_train_steps)
        rest = num_train_steps - warmup_steps
        if num_decay_steps is None or num_decay_steps < 0:
            raise ValueError(f"num_decay_steps must be given, at least 0, got {num_decay_steps}")
        if num_decay_steps > rest:
            raise ValueError(
                f"num_decay_steps must be between 0 and the {rest} steps after the warm-up, got {num_decay_steps}"
            )
        for name, value in (("warmup_type", warmup_type), ("decay_type", decay_type)):
            if value not in self.TYPES:
                raise ValueError(f"{name} must be one of {', '.join(self.TYPES)}, got {value!r}")
        if not 0 <= min_lr_ratio <= 1:
            raise ValueError(f"min_lr_ratio must be between 0 and 1, got {min_lr_ratio}")
        self.num_decay_steps, self.num_stable_steps = num_decay_steps, num_stable_steps
        self.warmup_type, self.decay_type = warmup_type, decay_type
        self.min_lr_ratio, self.num_cycles = min_lr_ratio, num_cycles

    def warm_up(self, step):
        progress = tf.minimum(super().warm_up(step), 1.0)
        wave = 0.5 * (1.0 - tf.cos(math.pi * progress))
        risen = {"linear": progress, "cosine": wave, "1-sqrt": 1.0 - (1.0 - progress) ** 0.5}
        return self._above_lowest(risen[self.warmup_type])

    def factor(self, step):
        stable = self.num_stable_steps
        start = self.num_train_steps - self.num_decay_steps if stable is None else self.warmup_steps + stable
        progress = tf.clip_by_value((step - start) / max(1, self.num_decay_steps), 0.0, 1.0)
        wave = 0.5 * (1.0 + tf.cos(math.pi * self.num_cycles * 2.0 * progress))
        left = {"linear": 1.0 - progress, "cosine": wave, "1-sqrt": 1.0 - progress**0.5}[self.decay_type]
        left = tf.where(step >= start + self.num_decay_steps, tf.zeros_like(left), left)
        return self._above_lowest(left)

    def _above_lowest(self, factor):
        return factor * (1.0 - self.min_lr_ratio) + self.min_lr_ratio

    def get_config(self) -> dict:
        names = ("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


SCHEDULES = {
    "linear": Linear,
    "cosine": Cosine,
    "constant": Constant,
    "constant_with_warmup": Constant,
    "cosine_with_min_lr": Cosine,
    "cosine_warmup_with_min_lr": CosineFromFirstStep,
    "cosine_with_restarts": CosineWithRestarts,
    "polynomial": Polynomial,
    "inverse_sqrt": InverseSquareRoot,
    "warmup_stable_decay": WarmUpStableDecay,
}
"""transformers' names of `lr_scheduler_type`."""

WITH_MIN_LR = ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
TEXTS = ("warmup_type", "decay_type")  # the options that are not numbers


def create_schedule(
    lr_scheduler_type: str,
    learning_rate: float,
    *,
    num_train_steps: int | None = None,
    warmup_steps: int = 0,
    **options,
) -> WarmUpSchedule:
    """The schedule with one of transformers' names.

    Args:
        lr_scheduler_type: a key of `SCHEDULES`; "constant" has no warm-up.
        learning_rate: the highest rate.
        num_train_steps: the number of updates in the run.
        warmup_steps: how many updates have a lower rate first.
        options: transformers' `lr_scheduler_kwargs`: those of the schedule's class, and `min_lr_rate`, the lowest rate
            as a part of the highest, in place of `min_lr`.

    Raises:
        ValueError: an unknown name, an option that the schedule does not have, or a number that cannot be.
    """
    name = str(getattr(lr_scheduler_type, "value", lr_scheduler_type))
    if name not in SCHEDULES:
        near = difflib.get_close_matches(name, SCHEDULES, n=1, cutoff=0.0)[0]
        known = ", ".join(SCHEDULES)
        raise ValueError(f"lr_scheduler_type {name!r} is not known, the nearest is {near!r}; known are {known}")
    _check_options(name, options)
    if "min_lr_rate" in options:
        options["min_lr"] = options.pop("min_lr_rate") * learning_rate
    if name == "constant":
        warmup_steps = 0
    return SCHEDULES[name](learning_rate, warmup_steps, num_train_steps, **options)


def _check_options(name: str, options: Mapping) -> None:
    own, of_all = (inspect.signature(cls).parameters for cls in (SCHEDULES[name], WarmUpSchedule))
    accepted = [option for option in own if option not in of_all] + ["min_lr_rate"] * (name in WITH_MIN_LR)
    unknown = [option for option in options if option not in accepted]
    if unknown:
        has = f"it has {', '.join(accepted)}" if accepted else "it has none"
        raise ValueError(f"lr_scheduler_type {name!r} does not have these options: {', '.join(unknown)}; {has}")
    for option, value in options.items():
        if option not in TEXTS and not isinstance(value, int | float | None):
            raise ValueError(f"{option} in lr_scheduler_kwargs must be a number, got {value!r}")
    if name in WITH_MIN_LR and ("min_lr" in options) == ("min_lr_rate" in options):
        raise ValueError(f"lr_scheduler_kwargs of {name} must have either min_lr or min_lr_rate, got {dict(options)}")

"""AdamW as PyTorch computes it, other optimizers with decay on matrices only, and two ways of making them."""

import math
from typing import NamedTuple

import keras
import tensorflow as tf

from tfheads.adafactor import Adafactor
from tfheads.layers.dropout import uniform_bits
from tfheads.schedules import Polynomial, WarmUpSchedule, create_schedule

MOMENTS = ("_momentum", "_velocity")  # how Keras names Adam's variables


class _Step(NamedTuple):
    """What the variables of one step share: float32 scalars."""

    rate: tf.Tensor
    kept: tf.Tensor  # what is left of a weight that decays
    beta_1: tf.Tensor
    beta_2: tf.Tensor
    beta_1_power: tf.Tensor
    beta_2_power: tf.Tensor
    epsilon: tf.Tensor  # the operation adds it before it corrects the bias of the velocity, PyTorch afterwards


@keras.saving.register_keras_serializable("tfheads")
class AdamW(keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on variables of two or more axes.

    Norms and biases do not decay. It differs from Keras' own in three more points: epsilon is added where PyTorch adds
    it; the update of a variable is one operation, not ten; and moments of float16 or bfloat16 variables are float32,
    because `beta_2` rounds to 1 in these types and no weight would ever move.

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        weight_decay: the part of a weight that is taken away by each update, times the learning rate.
        moments_dtype: "float32", or "bfloat16" for half of the memory: moments are then rounded up or down by chance,
            so that small changes count on the average (a hash of place and step decides: a run can be repeated).
        kwargs: as in `keras.optimizers.AdamW`, and `excluded_from_weight_decay`: places of further variables, in the
            order of `model.trainable_variables`, that do not decay (written by `get_config`).
    """

    def __init__(
        self,
        learning_rate=5e-5,
        weight_decay=0.0,
        epsilon=1e-8,
        excluded_from_weight_decay=(),
        moments_dtype: str = "float32",
        **kwargs,
    ):
        if moments_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"moments_dtype must be 'float32' or 'bfloat16', got {moments_dtype!r}")
        if moments_dtype != "float32" and kwargs.get("amsgrad"):
            raise ValueError("moments_dtype must be 'float32' with amsgrad=True, got 'bfloat16'")
        if isinstance(learning_rate, int):
            learning_rate = float(learning_rate)
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, epsilon=epsilon, **kwargs)
        self.moments_dtype = moments_dtype
        self._excluded_places = set(excluded_from_weight_decay)
        self._excluded_keys = frozenset()  # not the variables themselves: Keras would save them with the optimizer
        self._excluded_names = ()

    def exclude_from_weight_decay(self, var_list=None, var_names=None) -> None:
        """Leaves variables out of the decay, besides norms and biases; each call replaces the one before.

        May be called before and after the optimizer is built, but not while a compiled training step is in use, and is
        kept in `.keras` files.

        Args:
            var_list: variables of the model.
            var_names: texts; a variable whose name holds one of them does not decay.
        """
        self._excluded_keys = frozenset(self._var_key(variable) for variable in var_list or ())
        self._excluded_names = tuple(var_names or ())
        self._excluded_places = set()
        if self.built:
            self._place_excluded(self._trainable_variables)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._place_excluded(variables)

    def _place_excluded(self, variables):
        for place, variable in enumerate(variables):
            if self._var_key(variable) in self._excluded_keys or any(
                name in variable.name for name in self._excluded_names
            ):
                self._excluded_places.add(place)

    def add_variable(self, shape, initializer="zeros", dtype=None, **kwargs):
        if str(kwargs.get("name")).endswith(MOMENTS):
            dtype = self.moments_dtype
        elif dtype in ("float16", "bfloat16"):
            dtype = "float32"
        return super().add_variable(shape, initializer=initializer, dtype=dtype, **kwargs)

    def _use_weight_decay(self, variable) -> bool:
        return len(variable.shape) >= 2 and self._get_variable_index(variable) not in self._excluded_places

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` does it."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Keras' update of the variables, which get what they share in place of the rate.

        It is computed here, on each replica: outside of the replicas the rate of a schedule is several values.
        """
        super()._backend_update_step(grads, trainable_variables, self._shared(learning_rate))

    def _shared(self, learning_rate) -> _Step:
        rate, step = tf.cast(learning_rate, "float32"), tf.cast(self.iterations + 1, "float32")
        beta_2_power = self.beta_2**step
        return _Step(
            rate=rate,
            kept=1.0 - rate * (self.weight_decay or 0.0),
            beta_1=tf.constant(self.beta_1, "float32"),
            beta_2=tf.constant(self.beta_2, "float32"),
            beta_1_power=self.beta_1**step,
            beta_2_power=beta_2_power,
            epsilon=self.epsilon * tf.sqrt(1.0 - beta_2_power),
        )

    def update_step(self, gradient, variable, step: _Step):
        """Decays and updates one variable."""
        if self.weight_decay and self._use_weight_decay(variable):
            variable.assign(variable * tf.cast(step.kept, variable.dtype))
        if self.amsgrad:
            super().update_step(gradient, variable, step.rate)
            return
        index = self._get_variable_index(variable)
        moment, velocity = self._momentums[index].value, self._velocities[index].value
        gradient = tf.cast(tf.convert_to_tensor(gradient), "float32")
        if variable.dtype == moment.dtype == "float32":
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=moment.handle,
                v=velocity.handle,
                beta1_power=step.beta_1_power,
                beta2_power=step.beta_2_power,
                lr=step.rate,
                beta1=step.beta_1,
                beta2=step.beta_2,
                epsilon=step.epsilon,
                grad=gradient,
            )
            return
        mean, square = (tf.cast(tf.convert_to_tensor(values), "float32") for values in (moment, velocity))
        mean = mean + (gradient - mean) * (1.0 - self.beta_1)
        square = square + (tf.square(gradient) - square) * (1.0 - self.beta_2)
        moment.assign(self._stored(mean, 2 * index))
        velocity.assign(self._stored(square, 2 * index + 1))
        rate = step.rate * tf.sqrt(1.0 - step.beta_2_power) / (1.0 - step.beta_1_power)
        change = rate * mean / (tf.sqrt(square) + step.epsilon)
        variable.assign(tf.cast(tf.cast(variable, "float32") - change, variable.dtype))

    def _stored(self, values: tf.Tensor, number: int) -> tf.Tensor:
        """Float32 values as moments are stored; `number` tells the variables of the optimizer apart."""
        if self.moments_dtype == "float32":
            return values
        seed = tf.stack([tf.cast(self.iterations, tf.uint32), tf.constant(number, tf.uint32)])
        return rounded_by_chance(values, seed)

    def get_config(self) -> dict:
        own = {"excluded_from_weight_decay": sorted(self._excluded_places), "moments_dtype": self.moments_dtype}
        return {**super().get_config(), **own}


class _DecaysMatrices:
    """Mixin of a Keras optimizer: variables of one axis, norms and biases, do not decay."""

    def _use_weight_decay(self, variable) -> bool:
        return len(variable.shape) >= 2 and super()._use_weight_decay(variable)


@keras.saving.register_keras_serializable("tfheads")
class SGD(_DecaysMatrices, keras.optimizers.SGD):
    """Keras' stochastic gradient descent with decay on matrices only."""


@keras.saving.register_keras_serializable("tfheads")
class Lion(_DecaysMatrices, keras.optimizers.Lion):
    """Keras' Lion (Chen and others 2023) with decay on matrices only."""


OPTIMIZERS = {
    "adamw_torch": AdamW,
    "adamw_torch_fused": AdamW,
    "adafactor": Adafactor,
    "sgd": SGD,
    "lion_32bit": Lion,
}
"""transformers' names of `optim`."""


def rounded_by_chance(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Float32 values as bfloat16 of the same mean: up or down, the nearer the likelier.

    Args:
        values: of any shape, finite.
        seed: two uint32 numbers.
    """
    bits = tf.bitcast(values, tf.uint32)
    chance = tf.bitwise.right_shift(uniform_bits(tf.shape(values), seed), tf.constant(16, tf.uint32))
    kept = tf.bitwise.bitwise_and(bits + chance, tf.constant(0xFFFF0000, tf.uint32))
    return tf.cast(tf.bitcast(kept, tf.float32), tf.bfloat16)


def check_moves(optimizer: keras.optimizers.Optimizer, dtype: str) -> None:
    """Requires an optimizer that can change weights of a dtype.

    Raises:
        ValueError: its `beta_2` is 1 in weights of this dtype, in which Keras computes, so that no weight would move.
    """
    beta = getattr(optimizer, "beta_2", None)
    if beta is None or isinstance(optimizer, AdamW) or float(tf.as_dtype(dtype).as_numpy_dtype(beta)) < 1.0:
        return
    raise ValueError(
        f"beta_2 must be less than 1 in {dtype}, the weights' dtype, else nothing is learnt: use tfheads' AdamW or a "
        f"model of dtype 'mixed_{dtype}', got {beta} of {type(optimizer).__name__}"
    )


def create_optimizer(
    learning_rate: float = 5e-5,
    *,
    num_train_steps: int | None = None,
    warmup_ratio: float = 0.0,
    warmup_steps: int = 0,
    lr_scheduler_type: str = "linear",
    lr_scheduler_kwargs: dict | None = None,
    weight_decay: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    max_grad_norm: float | None = 1.0,
    optim: str = "adamw_torch",
) -> keras.optimizers.Optimizer:
    """An optimizer with a schedule; arguments are named, and have the defaults, as in transformers' training arguments.

    Args:
        learning_rate: the highest rate.
        num_train_steps: the number of updates in the run; needed by all schedules but the constant ones.
        warmup_ratio: the part of the run that is warm-up; `warmup_steps`, if above 0, has precedence.
        warmup_steps: the number of updates that are warm-up; a number below 1 is taken as a ratio.
        lr_scheduler_type: one of `tfheads.schedules.SCHEDULES`.
        lr_scheduler_kwargs: further options of the schedule.
        weight_decay: decay of matrices; norms and biases never decay.
        adam_beta1, adam_beta2, adam_epsilon: of AdamW; Lion has the first two.
        max_grad_norm: all gradients together are scaled down to this norm; None or 0 leaves them as they are.
        optim: one of `OPTIMIZERS`; SGD has no momentum, as in transformers.

    Raises:
        ValueError: an argument that cannot be, in one sentence.
    """
    _check_between("warmup_ratio", warmup_ratio, 0, 1)
    _check_between("adam_beta1", adam_beta1, 0, 1)
    _check_between("adam_beta2", adam_beta2, 0, 1)
    _check_between("weight_decay", weight_decay, 0)
    _check_between("max_grad_norm", max_grad_norm or 0, 0)
    if optim not in OPTIMIZERS:
        raise ValueError(f"optim must be one of {', '.join(OPTIMIZERS)}, got {optim!r}")
    if 0 < warmup_steps < 1:
        warmup_ratio, warmup_steps = warmup_steps, 0
    if not warmup_steps and warmup_ratio:
        if num_train_steps is None:
            raise ValueError(f"num_train_steps must be given with warmup_ratio={warmup_ratio}, got None")
        warmup_steps = math.ceil(num_train_steps * warmup_ratio)
    schedule = create_schedule(
        lr_scheduler_type,
        learning_rate,
        num_train_steps=num_train_steps,
        warmup_steps=warmup_steps,
        **(lr_scheduler_kwargs or {}),
    )
    options = {"learning_rate": schedule, "weight_decay": weight_decay, "global_clipnorm": max_grad_norm or None}
    cls = OPTIMIZERS[optim]
    if cls in (AdamW, Lion):
        options |= {"beta_1": adam_beta1, "beta_2": adam_beta2}
    if cls is AdamW:
        options["epsilon"] = adam_epsilon
    return cls(**options)


def create_optimizer_and_schedule(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
) -> tuple[AdamW, WarmUpSchedule]:
    """AdamW and its schedule, with the arguments of transformers' former `create_optimizer` for TensorFlow.

    Public as `tfheads.create_optimizer`, so that old scripts run.

    Args:
        init_lr: the rate after the warm-up.
        num_train_steps: the number of updates in the run.
        num_warmup_steps: how many of them are warm-up.
        min_lr_ratio: the rate at the end as a part of `init_lr`.
        adam_beta1, adam_beta2, adam_epsilon: of Adam.
        adam_clipnorm: each gradient is scaled down to this norm.
        adam_global_clipnorm: all gradients together are scaled down to this norm.
        weight_decay_rate: decay of matrices; norms and biases never decay.
        power: of the polynomial that the rate follows after the warm-up.
    """
    schedule = Polynomial(init_lr, num_warmup_steps, num_train_steps, lr_end=init_lr * min_lr_ratio, power=power)
    optimizer = AdamW(
        learning_rate=schedule,
        weight_decay=weight_decay_rate,
        beta_1=adam_beta1,
        beta_2=adam_beta2,
        epsilon=adam_epsilon,
        clipnorm=adam_clipnorm,
        global_clipnorm=adam_global_clipnorm,
    )
    return optimizer, schedule


def _check_between(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        between = f"{low} or more" if high == math.inf else f"between {low} and {high}"
        raise ValueError(f"{name} must be {between}, got {value}")

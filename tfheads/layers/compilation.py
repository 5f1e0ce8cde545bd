"""For what the code that runs is being compiled."""

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def under_xla() -> bool:
    """True while a function with `jit_compile=True`, or one that it calls, is traced."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def only_cpus() -> bool:
    """True where there is no other device than CPUs."""
    return not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def under_xla_on_cpu() -> bool:
    """True where XLA compiles and there is no other device than CPUs."""
    return under_xla() and only_cpus()


@tf.custom_gradient
def apart(x):
    """`x`, which XLA on a CPU computes by itself before anything else is done with it; elsewhere `x` as it is.

    XLA takes what follows a product of one row into the product's loop, which is then several times slower.
    """
    (kept,) = gen_xla_ops.xla_optimization_barrier([x]) if under_xla_on_cpu() else (x,)
    return kept, lambda gradient: gradient

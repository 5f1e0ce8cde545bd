"""For what the code that runs is being compiled."""

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def under_xla() -> bool:
    """True while a function with `jit_compile=True`, or one that it calls, is traced."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def under_xla_on_cpu() -> bool:
    """True where XLA compiles and there is no other device than CPUs."""
    return under_xla() and not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))

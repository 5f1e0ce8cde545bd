"""Whether the code that runs is being compiled by XLA."""

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def under_xla() -> bool:
    """True while a function with `jit_compile=True`, or one that it calls, is traced."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())

"""What training needs from `tf.distribute`; the one place that replaces a private function of Keras."""

import tensorflow as tf


def sum_over_replicas(values):
    """The sum of each tensor over all replicas; the tensors themselves where there is only one replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def let_the_step_reduce(optimizer) -> None:
    """Keeps a Keras optimizer from summing gradients over replicas: the training step has done it, before clipping.

    Keras 3.15 clips each replica's part and sums afterwards, so that a result depends on the number of replicas.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list

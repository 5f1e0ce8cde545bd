"""Which of several workers writes files, uploads and tracks."""

import tensorflow as tf


def is_chief(model) -> bool:
    """Whether this process is the one that acts for all workers; True where there is only one."""
    strategy = model.distribute_strategy if model is not None else tf.distribute.get_strategy()
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.task_type:
        return True
    jobs = resolver.cluster_spec().jobs
    if "chief" in jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0

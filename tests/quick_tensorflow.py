"""TensorFlow of the quick tests: what runs once or twice is not made fast first. `make test-slow` has it as it is."""

import os

XLA_FLAGS = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)
"""XLA's own work is all there, LLVM's is quick."""


def choose_flags() -> None:
    """Sets the flags, before TensorFlow is imported, unless the environment has others."""
    os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)


def leave_out_optimisation() -> None:
    """In a process that imports TensorFlow with these flags, all of the below is left out."""
    if os.environ.get("XLA_FLAGS") == XLA_FLAGS:
        _leave_out_tuning()
        _leave_out_names()


def _leave_out_tuning() -> None:
    """Graphs and datasets run as they are made.

    Grappler takes longer than it saves here. The thread that tunes a dataset may miss that it is to end (TensorFlow
    wakes it just before it sets the flag) and sleeps on, for as long as the dataset has lived, while the test waits.
    """
    import tensorflow as tf  # not where tests are only distributed
    from tensorflow.python.data.ops.multi_device_iterator_ops import OwnedMultiDeviceIterator

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    options = tf.data.Options()
    options.autotune.enabled = False
    iterate, start = tf.data.Dataset.__iter__, OwnedMultiDeviceIterator.__init__

    def start_untuned(iterator, dataset=None, *arguments, **named):
        start(iterator, None if dataset is None else dataset.with_options(options), *arguments, **named)

    tf.data.Dataset.__iter__ = lambda dataset: iterate(dataset.with_options(options))
    OwnedMultiDeviceIterator.__init__ = start_untuned


def _leave_out_names() -> None:
    """Variables come about in half the time: TensorFlow looks for a kernel anew where a name for messages is new."""
    from tensorflow.python.ops import gen_resource_variable_ops

    make = gen_resource_variable_ops.var_handle_op
    gen_resource_variable_ops.var_handle_op = lambda **options: make(**{**options, "debug_name": ""})

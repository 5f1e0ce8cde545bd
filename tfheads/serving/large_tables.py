"""Large tables as variables: what a SavedModel holds as constants is part of its graph, which is to stay small."""

import tensorflow as tf

LARGE = 2**12  # entries


def tables_as_variables(module: tf.Module) -> None:
    """Puts a variable, which is saved beside the graph, in the place of every large tensor of a module and its parts.

    Functions that were traced before keep the constants.
    """
    for part in (module, *module.submodules):
        for name, value in list(vars(part).items()):
            if tf.is_tensor(value) and not isinstance(value, tf.Variable) and value.shape.num_elements() >= LARGE:
                with tf.init_scope(), tf.device("cpu"):
                    setattr(part, name, tf.Variable(value, trainable=False))

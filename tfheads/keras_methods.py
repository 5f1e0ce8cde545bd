"""Methods that models inherit from Keras and that would do nothing or half: each refuses in one sentence."""

import os

from keras.src.backend.common.remat import get_current_remat_mode
from keras.src.utils.python_utils import default


class RefusesKerasMethods:
    """Mixin of `TaskModel`, in front of `keras.Model`."""

    def quantize(self, *arguments, **options):
        """Refused: kernels would stay as they are.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("quantize is not supported, no weight would change: load with dtype='bfloat16'")

    def export(self, *arguments, **options):
        """Refused: Keras' export knows neither the inputs by name nor the tokenizer.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("export is not supported: use export_serving(directory, tokenizer)")

    def get_state_tree(self, *arguments, **options):
        """Refused: Keras keys the values by names of variables, which several variables share.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("get_state_tree is not supported, it would lose weights: use get_weights()")

    def set_state_tree(self, *arguments, **options):
        """Refused as `get_state_tree` is.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("set_state_tree is not supported, it would leave out weights: use set_weights()")

    def save(self, filepath, *arguments, **options):
        """Saves into a `.keras` file; see `keras.Model.save`.

        Raises:
            ValueError: another format, in which Keras saves what it cannot load.
        """
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                f"save takes a .keras file, got {os.fspath(filepath)!r}: save_pretrained writes a checkpoint, "
                "export_serving a SavedModel"
            )
        super().save(filepath, *arguments, **options)

    @default  # else Keras would ask it for the outputs of functional models
    def compute_output_shape(self, *arguments, **options):
        """Refused: the shapes follow from inputs by name, not from one shape.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no compute_output_shape, so keras.layers.TimeDistributed cannot hold it: "
            "call the model on keras.Input tensors"
        )

    @property
    def dtype_policy(self):
        """The dtype policy that the model was made with."""
        return super().dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value) -> None:
        raise AttributeError(
            f"dtype_policy cannot be set to {value!r} when weights exist: give dtype to from_pretrained or from_config"
        )


def refuse_remat_scope() -> None:
    """Requires that no `keras.RematScope` is entered, in which the parts of a model cannot be called.

    Raises:
        ValueError: one is.
    """
    if get_current_remat_mode() is not None:
        raise ValueError("models cannot be made in a keras.RematScope: call gradient_checkpointing_enable() before fit")

"""What a head is, and what a family says of the head that it has for a task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tfheads.checkpoints.rules import Rules
from tfheads.layers.part import Part


class Head(Part):
    """A layer from the backbone's output to the outputs of a task.

    Attributes:
        input_names: the inputs that it takes beside the backbone's.
        criteria: the losses that it is trained on; none for a bare model.
    """

    input_names: tuple[str, ...] = ()
    criteria: tuple = ()

    def check_inputs(self, inputs: Mapping) -> list:
        """Requires inputs that the head can use; see `tfheads.checks.require`."""
        return []

    def call(self, encoded: Mapping, token_table=None, inputs: Mapping | None = None, training=None) -> dict:
        """The outputs by name.

        Args:
            encoded: what the backbone returned.
            token_table: the backbone's token embeddings `[vocabulary, hidden]`, or their `ColumnBlocks`.
            inputs: the model's inputs.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TaskHead:
    """The head that a family has for a task, and what checkpoints call its weights.

    Attributes:
        make: from the config to the head; None for a bare model.
        names: rules as in a `Table`, from attribute paths within the head to the checkpoint's modules; several sets of
            them if a checkpoint may have one part of the head and lack another (a pooler, but no classifier). `{base}`
            stands for what the names of the backbone's tensors begin with.
    """

    make: Callable[[object], Head] | None = None
    names: Rules | tuple[Rules, ...] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Rules, ...]:
        """The sets of rules."""
        return self.names if isinstance(self.names, tuple) else (self.names,)

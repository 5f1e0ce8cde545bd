"""The dense modules of a model, by the names that its checkpoint has for them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import keras

from tfheads.checkpoints.attribute_walk import layers_by_path
from tfheads.checkpoints.operations import Operation
from tfheads.checkpoints.rules import Binding
from tfheads.layers.projections import Projection

ALL = "all-linear"
SHOWN = 8


class DenseModule(NamedTuple):
    """A dense module of a checkpoint.

    Attributes:
        name: the module's in the checkpoint.
        layers: what it is in the model: one layer, or several that the checkpoint keeps as one (queries, keys, values).
        operation: from the module's weight to the layers' kernels.
        in_head: whether it belongs to the head.
    """

    name: str
    layers: tuple[Projection, ...]
    operation: Operation
    in_head: bool

    @property
    def inputs(self) -> int:
        """The width of its inputs."""
        return self.layers[0].kernel.shape[0]


def dense_modules(model) -> list[DenseModule]:
    """All dense modules of a task model that adapters can stand beside."""
    layers = {id(layer.kernel): layer for _, layer in layers_by_path(model) if isinstance(layer, Projection)}
    head, found = _of_head(model), []
    for binding in _bindings(model):
        kernels = [id(variable) for variable in binding.variables]
        if all(kernel in layers for kernel in kernels):
            name = binding.names[0].removesuffix(".weight")
            dense = tuple(layers[kernel] for kernel in kernels)
            found.append(DenseModule(name, dense, binding.operation, kernels[0] in head))
    return found


def head_bindings(model) -> list[Binding]:
    """What the checkpoint has of a task model's head."""
    head = _of_head(model)
    return [binding for binding in _bindings(model) if id(binding.variables[0]) in head]


def _bindings(model) -> list[Binding]:
    return model.family.table(model.config).bindings(model, model.family.checkpoint_base(model.weights_of))


def _of_head(model) -> set[int]:
    return set() if model.head is None else {id(variable) for variable in model.head.weights}


def head_modules(model) -> dict[str, list[keras.Variable]]:
    """The checkpoint's modules of a task model's head, with their variables."""
    found: dict[str, list[keras.Variable]] = {}
    for binding in head_bindings(model):
        found.setdefault(module_of(binding), []).extend(binding.variables)
    return found


def module_of(binding: Binding) -> str:
    """The checkpoint module that a binding's tensors belong to."""
    return binding.names[0].rpartition(".")[0]


def chosen(modules: Iterable[DenseModule], targets: "str | Iterable[str]") -> list[DenseModule]:
    """The modules that `targets` means, as in PEFT.

    Args:
        modules: to choose from.
        targets: "all-linear" for all that are not in the head, a regular expression that fits whole names, or a list of
            names or of their last parts.

    Raises:
        ValueError: none is meant, or a name of a list means none.
    """
    modules = list(modules)
    if targets == ALL:
        return [module for module in modules if not module.in_head]
    if isinstance(targets, str):
        found = [module for module in modules if re.fullmatch(targets, module.name)]
        missing = [] if found else [targets]
    else:
        ends = {target: [m for m in modules if m.name == target or m.name.endswith(f".{target}")] for target in targets}
        missing = [target for target, meant in ends.items() if not meant] or ([] if ends else [""])
        wanted = {module.name for meant in ends.values() for module in meant}
        found = [module for module in modules if module.name in wanted]
    if missing:
        ends = list(dict.fromkeys(re.sub(r".*\.\d+\.", "", module.name) for module in modules))
        raise ValueError(f"targets must name dense modules such as {', '.join(ends[:SHOWN])}, got {missing[0]!r}")
    return found

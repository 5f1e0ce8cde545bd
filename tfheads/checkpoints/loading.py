"""From a checkpoint's tensors to a model's variables: strict, one tensor at a time."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import keras
import numpy as np

from tfheads.checkpoints.initialisation import initialise
from tfheads.checkpoints.operations import Same
from tfheads.checkpoints.tables import Binding, Table

PIECE = 16 * 2**20  # elements of a table that are read at a time, so that no large copy is ever made


class Tensors(Protocol):
    """A checkpoint's tensors, read when asked for."""

    def names(self) -> Iterable[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> np.ndarray: ...

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray: ...


@dataclass(frozen=True)
class LoadPlan:
    """What loading will do with every tensor of a checkpoint.

    Attributes:
        bindings: which tensors become which variables, by the checkpoint's own names.
        new: variables of a head that the checkpoint lacks.
        dropped: tensors of a head that the model lacks.
        copies: tensors that only repeat another one, with that one's name.
    """

    bindings: tuple[Binding, ...]
    new: tuple[keras.Variable, ...]
    dropped: tuple[str, ...]
    copies: tuple[tuple[str, str], ...]


def plan_loading(model, tensors: Tensors) -> LoadPlan:
    """Accounts for every tensor and every variable before anything is changed.

    Raises:
        ValueError: a tensor is missing, unexpected or of the wrong shape; names it.
    """
    table: Table = model.family.table(model.config)
    actual = {_modern(name): name for name in tensors.names()}
    prefix = f"{model.family.checkpoint_prefix}."
    base = prefix if any(name.startswith(prefix) for name in actual) else ""
    copies = {name: source.replace("{base}", base) for name, source in (table.copies | table.echoes).items()}
    for name, source in copies.items():
        if name in actual and source not in actual:
            actual[source] = actual.pop(name)
    head = set() if model.head is None else {id(variable) for variable in model.head.variables}
    found, new, missing = [], [], []
    for binding in table.bindings(model, base):
        absent = [name for name in binding.names if name not in actual]
        if not absent:
            found.append(binding)
        elif all(id(variable) in head for variable in binding.variables):
            new.append(binding)
        else:
            missing += absent
    if any(id(binding.variables[0]) in head for binding in found):  # half of a head is no new head
        missing += [name for binding in new for name in binding.names if name not in actual]
    used = {name for binding in found for name in binding.names}
    left = sorted(name for name in actual if name not in used | set(copies) and not table.is_ignored(name))
    heads = tuple(f"{module}." for module in table.head_modules(base))
    dropped = [name for name in left if name.startswith(heads)]
    unexpected = [name for name in left if not name.startswith(heads)]
    if missing or unexpected:
        raise ValueError(
            f"the checkpoint does not fit {type(model).__name__}: "
            f"missing {_listed(missing)}; unexpected {_listed(unexpected)}"
        )
    found = [replace(binding, names=tuple(actual[name] for name in binding.names)) for binding in found]
    _check_shapes(found, tensors)
    copies = {name: source for name, source in copies.items() if name in table.copies and name in actual}
    return LoadPlan(
        tuple(found),
        tuple(variable for binding in new for variable in binding.variables),
        tuple(actual[name] for name in dropped),
        tuple(
            (actual[name], actual[source]) for name, source in copies.items() if name in set(table.copies) & set(actual)
        ),
    )


def load(model, tensors: Tensors, seed: int | None = None) -> LoadPlan:
    """Fills a model's variables from a checkpoint, and draws a head that the checkpoint lacks.

    Raises:
        ValueError: the checkpoint does not fit, or a copy of a tied tensor differs from it.
    """
    plan = plan_loading(model, tensors)
    for name, source in plan.copies:
        if not _equal(tensors, name, source):
            raise ValueError(
                f"{name} differs from {source}, which the config says it is tied to: set tie_word_embeddings=False"
            )
    for binding in plan.bindings:
        _fill(binding, tensors)
    if plan.new:
        initialise(model, seed=seed, only=plan.new)
    return plan


def _fill(binding: Binding, tensors: Tensors) -> None:
    variable = binding.variables[0]
    if isinstance(binding.operation, Same) and np.prod(variable.shape) > PIECE:
        rows = max(1, PIECE // int(np.prod(variable.shape[1:])))
        for start in range(0, variable.shape[0], rows):
            piece = tensors.read_rows(binding.names[0], start, min(start + rows, variable.shape[0]))
            variable.value[start : start + len(piece)].assign(piece.astype(variable.dtype))
        return
    values = binding.operation.to_variables([tensors.read(name) for name in binding.names])
    for variable, value in zip(binding.variables, values, strict=True):
        variable.assign(np.ascontiguousarray(value).astype(variable.dtype, copy=False))


def _check_shapes(bindings: Iterable[Binding], tensors: Tensors) -> None:
    for binding in bindings:
        values = [np.broadcast_to(np.float32(0), variable.shape) for variable in binding.variables]
        for name, expected in zip(binding.names, binding.operation.to_tensors(values), strict=True):
            if tuple(tensors.shape(name)) != expected.shape:
                raise ValueError(f"{name} has the shape {tuple(tensors.shape(name))}, the config says {expected.shape}")


def _equal(tensors: Tensors, name: str, source: str) -> bool:
    if tuple(tensors.shape(name)) != tuple(tensors.shape(source)):
        return False
    rows = max(1, PIECE // max(1, int(np.prod(tensors.shape(name)[1:]))))
    starts = range(0, tensors.shape(name)[0], rows)
    return all(
        np.array_equal(tensors.read_rows(name, at, at + rows), tensors.read_rows(source, at, at + rows))
        for at in starts
    )


def _modern(name: str) -> str:
    """Today's name of a tensor: old checkpoints say gamma and beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _listed(names: list[str], most: int = 6) -> str:
    shown = ", ".join(sorted(names)[:most]) or "nothing"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")

"""From a checkpoint's tensors to a model's variables: strict, one tensor at a time."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tfheads.checkpoints.initialisation import initialise
from tfheads.checkpoints.rules import Binding
from tfheads.checkpoints.tables import Alias, Table, head_modules, is_known

PIECE = 2**18  # elements that are copied at a time, so that no large copy is ever made


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
        new: what the checkpoint lacks of the head or of cross-attention, by the names that it would have.
        dropped: tensors of a head that the model lacks.
        repeated: tensors that only repeat another one, with that one's name.
        known: what the checkpoint lacks and the family knows.
    """

    bindings: tuple[Binding, ...]
    new: tuple[Binding, ...]
    dropped: tuple[str, ...]
    repeated: tuple[tuple[str, str], ...]
    known: tuple[Binding, ...] = ()


def plan_loading(model, tensors: Tensors, ignore_mismatched_sizes: bool = False) -> LoadPlan:
    """Accounts for every tensor and every variable before anything is changed.

    Args:
        model: whose variables are to be filled.
        tensors: of the checkpoint.
        ignore_mismatched_sizes: whether a section of the head of another size, such as a classifier of other classes,
            counts as one that the checkpoint lacks.

    Raises:
        ValueError: a tensor is missing, unexpected or of the wrong shape; names it.
    """
    table: Table = model.family.table(model.config)
    actual = _by_modern_name(tensors)
    base = model.family.base_in(actual)
    aliases = table.aliases_below(base)
    actual = _with_aliases(actual, aliases)
    found, new, known, missing, bindings = [], [], [], [], table.bindings(model, base)
    resized = {
        binding.section
        for binding in bindings
        if ignore_mismatched_sizes
        and binding.section is not None
        and not is_known(binding)
        and _misshapen(binding, actual, tensors)
    }
    for binding in bindings:
        absent = [name for name in binding.names if name not in actual]
        if binding.section in resized:
            new.append(binding)
        elif not absent:
            found.append(binding)
        elif is_known(binding):
            known.append(binding)
        elif binding.section is not None:
            new.append(binding)
        else:
            missing += absent
    sections = {binding.section for binding in found}
    for binding in new:  # half of a section is no new section
        missing += [name for name in binding.names if name not in actual and binding.section in sections]
    used = {name for binding in (*found, *new) for name in binding.names}
    used |= {alias.name for alias in aliases if not alias.fallback}
    left = sorted(name for name in actual if name not in used and not table.is_ignored(name))
    heads = tuple(f"{module}." for module in head_modules(model.family, model.config, base))
    dropped = [name for name in left if name.startswith(heads)]
    unexpected = [name for name in left if not name.startswith(heads)]
    if missing or unexpected:
        raise ValueError(
            f"the checkpoint does not fit {type(model).__name__}: "
            f"missing {listed(missing)}; unexpected {listed(unexpected)}"
        )
    found = [replace(binding, names=tuple(actual[name] for name in binding.names)) for binding in found]
    _check_shapes(found, tensors)
    repeated = [alias for alias in aliases if not (alias.written or alias.fallback) and alias.name in actual]
    return LoadPlan(
        tuple(found),
        tuple(new),
        tuple(actual[name] for name in dropped),
        tuple((actual[alias.name], actual[alias.of]) for alias in repeated),
        tuple(known),
    )


def _with_aliases(actual: Mapping[str, str], aliases: Iterable[Alias]) -> dict[str, str]:
    """The tensors by the names that the table has for them, where a checkpoint has only their aliases."""
    found = dict(actual)
    for alias in aliases:
        if alias.fallback and alias.name not in found and alias.of in found:
            found[alias.name] = found[alias.of]
        elif not alias.fallback and alias.name in found and alias.of not in found:
            found[alias.of] = found.pop(alias.name)
    return found


def load(model, tensors: Tensors, seed: int | None = None, ignore_mismatched_sizes: bool = False) -> LoadPlan:
    """Fills a model's variables from a checkpoint, and draws what it lacks of the head; see `plan_loading`.

    Raises:
        ValueError: the checkpoint does not fit, or a copy of a tied tensor differs from it.
    """
    plan = plan_loading(model, tensors, ignore_mismatched_sizes)
    for name, source in plan.repeated:
        if not _equal(tensors, name, source):
            raise ValueError(
                f"{name} differs from {source}, which the config says it is tied to: set tie_word_embeddings=False"
            )
    for binding in plan.bindings:
        _fill(binding, tensors)
    if plan.new or plan.known:
        lacking = [variable for binding in (*plan.new, *plan.known) for variable in binding.variables]
        initialise(model, seed=seed, only=lacking)
    return plan


def modern(name: str) -> str:
    """Today's name of a tensor: old checkpoints say gamma and beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _fill(binding: Binding, tensors: Tensors) -> None:
    """Some rows of the tensors at a time, so that no tensor is held beside the variables that it becomes."""
    operation, shape = binding.operation, tensors.shape(binding.names[0])
    for start, stop in _pieces(shape, operation.rows_together(shape)):
        values = operation.to_variables([tensors.read_rows(name, start, stop) for name in binding.names])
        for variable, value in zip(binding.variables, values, strict=True):
            axis = value.ndim - 1 if operation.outputs_first else 0
            _write(variable, value, axis, start * variable.shape[axis] // shape[0])


def _write(variable: keras.Variable, value: np.ndarray, axis: int, start: int) -> None:
    """Writes into the variable's own memory, on each replica: assigning would hold the tensor twice.

    Args:
        variable: to be changed from the index `start` of an axis on.
        value: of the variable's shape but for that axis, which is the first or the second.
        axis, start: where it belongs.
    """
    value = tf.constant(np.ascontiguousarray(value).astype(variable.dtype, copy=False))
    begin, end = [0] * axis + [start], [*value.shape[:axis], start + value.shape[axis]]
    for replica in getattr(variable.value, "values", (variable.value,)):
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=replica.handle, begin=begin, end=end, strides=[1] * (axis + 1), value=value
        )


def _pieces(shape: tuple[int, ...], multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of rows, multiples of a number, that hold at most `PIECE` elements each if that many do."""
    rows = max(1, PIECE // max(1, multiple * math.prod(shape[1:]))) * multiple
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])


def _check_shapes(bindings: Iterable[Binding], tensors: Tensors) -> None:
    for binding in bindings:
        for name, expected in zip(binding.names, _expected_shapes(binding), strict=True):
            if tuple(tensors.shape(name)) != expected:
                raise ValueError(f"{name} has the shape {tuple(tensors.shape(name))}, the config says {expected}")


def _misshapen(binding: Binding, actual: dict[str, str], tensors: Tensors) -> bool:
    """Whether the checkpoint has one of a binding's tensors in another shape."""
    return any(
        name in actual and tuple(tensors.shape(actual[name])) != expected
        for name, expected in zip(binding.names, _expected_shapes(binding), strict=True)
    )


def _expected_shapes(binding: Binding) -> list[tuple[int, ...]]:
    values = [np.broadcast_to(np.float32(0), variable.shape) for variable in binding.variables]
    return [tensor.shape for tensor in binding.operation.to_tensors(values)]


def _equal(tensors: Tensors, name: str, source: str) -> bool:
    if tuple(tensors.shape(name)) != tuple(tensors.shape(source)):
        return False
    return all(
        np.array_equal(tensors.read_rows(name, *piece), tensors.read_rows(source, *piece))
        for piece in _pieces(tensors.shape(name))
    )


def _by_modern_name(tensors: Tensors) -> dict[str, str]:
    actual = {}
    for name in tensors.names():
        if actual.setdefault(modern(name), name) != name:
            raise ValueError(f"the checkpoint has {name} and {actual[modern(name)]}, two names of one tensor")
    return actual


def listed(names: list[str], most: int = 6) -> str:
    """Names in order, the first few of many."""
    shown = ", ".join(sorted(names)[:most]) or "nothing"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")

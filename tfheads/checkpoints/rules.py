"""Rules: how a layer's variables and the tensors of a checkpoint's module become each other.

What the variables of a layer are called below its module, and in which layout, follows from the layer's type; a rule
object in place of a name says when it differs.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import keras

from tfheads.checkpoints.operations import Fused, FusedByHead, Operation, Row, Same, Transposed, TransposedPairs
from tfheads.layers.norms import LayerNorm, RMSNorm


@dataclass(frozen=True)
class Binding:
    """Checkpoint tensors and the variables that they become.

    Attributes:
        names: of the tensors.
        variables: of the model.
        operation: between the two.
        section: the part of the model, a number in the head or an `Optional` of the table, which checkpoints have whole
            or not at all; None for what they must have.
    """

    names: tuple[str, ...]
    variables: tuple[keras.Variable, ...]
    operation: Operation
    section: object = None


Layout = Callable[[keras.layers.Layer, str], Iterator[Binding]]
LAYOUTS: dict[type, Layout] = {}
"""For a type of layer what its variables are in a module of PyTorch."""


def layout(kind: type) -> Callable[[Layout], Layout]:
    """Function decorator: registers what the variables of a type of layer, and of those derived from it, become."""

    def register(function: Layout) -> Layout:
        LAYOUTS[kind] = function
        return function

    return register


@layout(keras.layers.Dense)
def _dense(layer, name):
    yield Binding((f"{name}.weight",), (layer.kernel,), Transposed())
    if layer.use_bias:
        yield Binding((f"{name}.bias",), (layer.bias,), Same())


@layout(keras.layers.Embedding)
def _embedding(layer, name):
    yield Binding((f"{name}.weight",), (layer.embeddings,), Same())


@layout(LayerNorm)
def _layer_norm(layer, name):
    yield Binding((f"{name}.weight",), (layer.gamma,), Same())
    yield Binding((f"{name}.bias",), (layer.beta,), Same())


@layout(RMSNorm)
def _rms_norm(layer, name):
    yield Binding((f"{name}.weight",), (layer.gamma,), Same())


@dataclass(frozen=True)
class Module:
    """A layer is the checkpoint module of this name, in the layout of its type."""

    name: str

    def bindings(self, layer: keras.layers.Layer, name: str) -> Iterator[Binding]:
        """The bindings of `layer` to the module called `name`."""
        for kind in type(layer).__mro__:
            if kind in LAYOUTS:
                yield from LAYOUTS[kind](layer, name)
                return
        if layer.variables:
            raise TypeError(f"a table cannot bind {type(layer).__name__} by name, give a rule object for {name}")


@dataclass(frozen=True)
class Own(Module):
    """Variables of a layer itself are tensors of the module.

    Attributes:
        tensors: for the attribute of each variable what its tensor is called below the module. A layer may lack one.
    """

    tensors: Mapping[str, str]

    def bindings(self, layer, name):
        for attribute, tensor in self.tensors.items():
            if getattr(layer, attribute) is not None:
                yield Binding((f"{name}.{tensor}".lstrip("."),), (getattr(layer, attribute),), Same())


@dataclass(frozen=True)
class Conv1D(Module):
    """A `Dense` layer is a module with an untransposed kernel (transformers' Conv1D)."""

    def bindings(self, layer, name):
        yield Binding((f"{name}.weight",), (layer.kernel,), Same())
        yield Binding((f"{name}.bias",), (layer.bias,), Same())


@dataclass(frozen=True)
class FusedConv1D(Module):
    """Several `Dense` layers of one layer are one untransposed module, side by side."""

    parts: tuple[str, ...]

    def bindings(self, layer, name):
        denses = [getattr(layer, part) for part in self.parts]
        operation = Fused(tuple(dense.units for dense in denses))
        yield Binding((f"{name}.weight",), tuple(dense.kernel for dense in denses), operation)
        yield Binding((f"{name}.bias",), tuple(dense.bias for dense in denses), operation)


@dataclass(frozen=True)
class FusedByHeadLinear(Module):
    """The `parts` of an attention layer are one module, in PyTorch's layout, those of a head together."""

    parts: tuple[str, ...] = ("query", "key", "value")

    def bindings(self, layer, name):
        denses = [getattr(layer, part) for part in self.parts]
        operation = FusedByHead(denses[0].units // layer.num_heads, len(denses))
        yield Binding((f"{name}.weight",), tuple(dense.kernel for dense in denses), operation)
        if layer.use_bias:
            yield Binding((f"{name}.bias",), tuple(dense.bias for dense in denses), operation)


@dataclass(frozen=True)
class RotaryPairsLinear(Module):
    """A query or key projection of `heads` heads, `width` outputs of each rotated, whose pairs are side by side."""

    heads: int
    width: int

    def bindings(self, layer, name):
        operation = TransposedPairs(layer.units // self.heads, self.width)
        yield Binding((f"{name}.weight",), (layer.kernel,), operation)
        if layer.use_bias:
            yield Binding((f"{name}.bias",), (layer.bias,), operation)


def Bias(name: str) -> Own:
    """A layer's own `bias`, where it has one, is the module's."""
    return Own(name, {"bias": "bias"})


@dataclass(frozen=True)
class Offset(Module):
    """A layer's `offset` of logits is the tensor of this name, with an axis for the batch."""

    def bindings(self, layer, name):
        yield Binding((name,), (layer.offset,), Row())


Rules = Mapping[str, "str | Module"]


def within(path: str, rules: Rules) -> Rules:
    """The rules of a layer as rules of the one that holds it at `path`."""
    return {f"{path}.{inner}".rstrip("."): rule for inner, rule in rules.items()}


def renamed(rules: Rules, change: Callable[[str], str]) -> Rules:
    """The rules with their checkpoint names changed by a function."""
    modules = {path: Module(rule) if isinstance(rule, str) else rule for path, rule in rules.items()}
    return {path: _renamed(module, change(module.name)) for path, module in modules.items()}


def expanded(rules: Rules) -> Iterator[tuple[str, Module]]:
    """The rules with lists written out: `a.{x,y}: b.{u,v}` is `a.x: b.u` and `a.y: b.v`."""
    for path, rule in rules.items():
        rule = Module(rule) if isinstance(rule, str) else rule
        paths, names = _alternatives(path), _alternatives(rule.name)
        if len(paths) != len(names) and len(names) > 1:
            raise ValueError(f"{path} and {rule.name} list different numbers of names")
        for index, one in enumerate(paths):
            yield one, _renamed(rule, names[index] if len(names) > 1 else names[0])


def _renamed(rule: Module, name: str) -> Module:
    return type(rule)(**{**vars(rule), "name": name})


def _alternatives(template: str) -> list[str]:
    match = re.search(r"\{([^{}]*,[^{}]*)\}", template)
    if match is None:
        return [template]
    return [template[: match.start()] + item + template[match.end() :] for item in match[1].split(",")]

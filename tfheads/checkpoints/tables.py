"""Weight tables: which checkpoint tensors are which variables, in both directions.

A table maps attribute paths of layers to the checkpoint's module names. Both may have the hole `{i}`, filled with the
same number, and lists `{a,b}`, paired one by one. What a layer's variables are called below its module follows from
the layer's type; a rule object in place of a name says when the layout differs.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import keras

from tfheads.checkpoints.attribute_walk import checkpoint_variables, layers_by_path
from tfheads.checkpoints.operations import Fused, FusedByHead, Operation, Row, Same, Transposed, TransposedPairs
from tfheads.layers.norms import LayerNorm, RMSNorm


@dataclass(frozen=True)
class Binding:
    """Checkpoint tensors and the variables that they become.

    Attributes:
        names: of the tensors.
        variables: of the model.
        operation: between the two.
        section: the part of the model, a number in the head or one of the table's `may_lack`, which checkpoints have
            whole or not at all; None for what they must have.
    """

    names: tuple[str, ...]
    variables: tuple[keras.Variable, ...]
    operation: Operation
    section: int | str | None = None


@dataclass(frozen=True)
class Module:
    """A layer is the checkpoint module of this name, in PyTorch's layout."""

    name: str

    def bindings(self, layer: keras.layers.Layer, name: str) -> Iterator[Binding]:
        """The bindings of `layer` to the module called `name`."""
        if isinstance(layer, keras.layers.Dense):
            yield Binding((f"{name}.weight",), (layer.kernel,), Transposed())
            if layer.use_bias:
                yield Binding((f"{name}.bias",), (layer.bias,), Same())
        elif isinstance(layer, keras.layers.Embedding):
            yield Binding((f"{name}.weight",), (layer.embeddings,), Same())
        elif isinstance(layer, (LayerNorm, RMSNorm)):
            yield Binding((f"{name}.weight",), (layer.gamma,), Same())
            if isinstance(layer, LayerNorm):
                yield Binding((f"{name}.bias",), (layer.beta,), Same())
        elif layer.variables:
            raise TypeError(f"a table cannot bind {type(layer).__name__} by name, give a rule object for {name}")


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


@dataclass(frozen=True)
class Bias(Module):
    """A layer's own `bias`, where it has one, is the module's."""

    def bindings(self, layer, name):
        if layer.bias is not None:
            yield Binding((f"{name}.bias",), (layer.bias,), Same())


@dataclass(frozen=True)
class Offset(Module):
    """A layer's `offset` of logits is the tensor of this name, with an axis for the batch."""

    def bindings(self, layer, name):
        yield Binding((name,), (layer.offset,), Row())


Rules = Mapping[str, "str | Module"]


@dataclass(frozen=True)
class Table:
    """A family's weight table.

    Attributes:
        backbone: rules for the backbone; checkpoint names are below the family's prefix.
        heads: for each task rules for the head, or several sets of rules if checkpoints may have one part of the head
            and lack another (a pooler, but no classifier); `{base}` stands for the prefix.
        copies: tensors that repeat another one: one of the two may be absent; a copy is not written.
        echoes: tensors that transformers writes and never uses, each written like the one given.
        others: modules of heads that transformers has for the family and tfheads has no rule for.
        ignored: regular expressions of tensors that hold no weights (old buffers).
        stand_ins: tensors in whose place another one is read where a checkpoint lacks them.
        may_lack: what the attribute paths of those parts of the backbone contain that a checkpoint may lack.
        computed: regular expressions of tensors whose values the family knows, so that a checkpoint may lack them.
        unwritten: for a task the regular expression of tensors that transformers does not write for it.
    """

    backbone: Rules
    heads: Mapping[str, "Rules | tuple[Rules, ...]"] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    echoes: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    may_lack: tuple[str, ...] = ("cross_attention",)
    computed: tuple[str, ...] = ()
    unwritten: Mapping[str, str] = field(default_factory=dict)

    def bindings(self, model, base: str) -> list[Binding]:
        """Binds every variable of a model.

        Args:
            model: a task model.
            base: what the backbone's names begin with, such as "transformer.", or "".

        Raises:
            ValueError: a variable is bound twice or not at all, or a rule's path is spelled wrong.
        """
        rules = [(f"backbone.{path}", "{base}", rule, self._optional(path)) for path, rule in expanded(self.backbone)]
        for section, own in enumerate(_sections(self.heads.get(model.weights_of, {}))):
            rules += [(f"head.{path}".rstrip("."), "", rule, section) for path, rule in expanded(own)]
        compiled = [(_pattern(path), *rest) for path, *rest in rules]
        found = []
        for path, layer in layers_by_path(model):
            for pattern, prefix, rule, section in compiled:
                match = pattern.fullmatch(path)
                if match:
                    name = (prefix + rule.name).replace("{base}", base).format(**match.groupdict())
                    found.extend(replace(binding, section=section) for binding in rule.bindings(layer, name))
        _check_total(model, found)
        return found

    def _optional(self, path: str) -> str | None:
        return next((part for part in self.may_lack if part in path), None)

    def head_modules(self, base: str) -> set[str]:
        """The checkpoint modules of all of the family's heads."""
        rules = [rule for rules in self.heads.values() for section in _sections(rules) for _, rule in expanded(section)]
        return {rule.name.replace("{base}", base) for rule in rules} | set(self.others)

    def is_ignored(self, name: str) -> bool:
        """Whether a checkpoint tensor holds no weights."""
        return any(re.search(pattern, name) for pattern in self.ignored)

    def is_computed(self, binding: Binding) -> bool:
        """Whether the family knows the values of a binding's variables."""
        return any(re.search(pattern, name) for pattern in self.computed for name in binding.names)

    def is_written(self, name: str, task: str) -> bool:
        """Whether a tensor is part of a checkpoint that is written for `task`."""
        return task not in self.unwritten or not re.search(self.unwritten[task], name)


def within(path: str, rules: Rules) -> Rules:
    """The rules of a layer as rules of the one that holds it at `path`."""
    return {f"{path}.{inner}".rstrip("."): rule for inner, rule in rules.items()}


def renamed(rules: Rules, change: Callable[[str], str]) -> Rules:
    """The rules with their checkpoint names changed by a function."""
    modules = {path: Module(rule) if isinstance(rule, str) else rule for path, rule in rules.items()}
    return {path: _renamed(module, change(module.name)) for path, module in modules.items()}


def _sections(rules: "Rules | tuple[Rules, ...]") -> tuple[Rules, ...]:
    return rules if isinstance(rules, tuple) else (rules,)


def _pattern(path: str) -> re.Pattern:
    return re.compile(re.escape(path).replace(r"\{i\}", r"(?P<i>\d+)"))


def _check_total(model, bindings: Iterable[Binding]) -> None:
    bound = [id(variable) for binding in bindings for variable in binding.variables]
    paths = {
        id(variable): f"{path}.{variable.name}" for path, layer in layers_by_path(model) for variable in layer.variables
    }
    twice = {paths[one] for one in bound if bound.count(one) > 1} if len(set(bound)) < len(bound) else set()
    never = {paths[id(variable)] for variable in checkpoint_variables(model)} - {paths[one] for one in bound}
    if twice or never:
        raise ValueError(f"the weight table binds twice: {sorted(twice)}, never: {sorted(never)}")


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

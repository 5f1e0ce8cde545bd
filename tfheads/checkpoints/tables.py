"""Weight tables: which checkpoint tensors are which variables, in both directions.

A table maps attribute paths of layers to the checkpoint's module names. Both may have holes such as `{i}`, filled with
the same numbers, and lists `{a,b}`, paired one by one.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tfheads.checkpoints.attribute_walk import checkpoint_variables, layers_by_path
from tfheads.checkpoints.rules import Binding, Rules, expanded


@dataclass(frozen=True)
class Alias:
    """A second name under which checkpoints may have a tensor.

    Attributes:
        name: the second name; `{base}` stands for what the names of the backbone's tensors begin with.
        of: the first one. Where a checkpoint has only one of the two, it is read; where it has both, they must be
            equal.
        written: whether transformers writes it too, and never uses it: then it may differ where it is read.
        fallback: whether `name` is a tensor of its own, in whose place `of` is read where a checkpoint lacks it.
    """

    name: str
    of: str
    written: bool = False
    fallback: bool = False

    def below(self, base: str) -> "Alias":
        """The alias with `{base}` filled in."""
        return replace(self, name=self.name.replace("{base}", base), of=self.of.replace("{base}", base))

    def renamed(self, change: Callable[[str], str]) -> "Alias":
        """The alias with both names changed by a function."""
        return replace(self, name=change(self.name), of=change(self.of))


def tied_output(config, tokens: str, name: str = "lm_head.weight") -> tuple[Alias, ...]:
    """The output table's second name, if the config ties it to the table of `tokens`."""
    return (Alias(name, tokens),) if config.tie_word_embeddings else ()


@dataclass(frozen=True)
class Optional:
    """A part of the backbone that checkpoints have whole or not at all.

    Attributes:
        part: what the attribute paths of its layers contain.
        known: whether the family knows its values, so that nothing is new where a checkpoint lacks them.
        unwritten: tasks for which transformers does not write it.
    """

    part: str
    known: bool = False
    unwritten: tuple[str, ...] = ()


CROSS_ATTENTION = Optional("cross_attention")


@dataclass(frozen=True)
class Table:
    """A family's weight table, without its heads.

    Attributes:
        backbone: rules for the backbone; checkpoint names are below the family's prefix.
        aliases: second names of tensors.
        optional: what a checkpoint may lack.
        other_heads: modules of heads that transformers has for the family and tfheads has not.
        ignored: regular expressions of tensors that hold no weights (old buffers).
    """

    backbone: Rules
    aliases: tuple[Alias, ...] = ()
    optional: tuple[Optional, ...] = (CROSS_ATTENTION,)
    other_heads: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def bindings(self, model, base: str) -> list[Binding]:
        """Binds every variable of a model.

        Args:
            model: a task model.
            base: what the backbone's names begin with, such as "transformer.", or "".

        Raises:
            ValueError: a variable is bound twice or not at all, or a rule's path is spelled wrong.
        """
        rules = [(f"backbone.{path}", "{base}", rule, self._optional(path)) for path, rule in expanded(self.backbone)]
        for section, own in enumerate(model.family.head_rules(model.weights_of, model.config)):
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

    def _optional(self, path: str) -> Optional | None:
        return next((one for one in self.optional if one.part in path), None)

    def aliases_below(self, base: str) -> list[Alias]:
        """The aliases with `{base}` filled in."""
        return [alias.below(base) for alias in self.aliases]

    def is_ignored(self, name: str) -> bool:
        """Whether a checkpoint tensor holds no weights."""
        return any(re.search(pattern, name) for pattern in self.ignored)


def is_known(binding: Binding) -> bool:
    """Whether the family knows the values of a binding's variables."""
    return isinstance(binding.section, Optional) and binding.section.known


def is_written(binding: Binding, task: str) -> bool:
    """Whether a binding's tensors are part of a checkpoint that is written for `task`."""
    return not (isinstance(binding.section, Optional) and task in binding.section.unwritten)


def head_modules(family: type, config, base: str) -> set[str]:
    """The checkpoint modules of all of a family's heads."""
    sections = [section for task in family.heads for section in family.head_rules(task, config)]
    names = {rule.name.replace("{base}", base) for section in sections for _, rule in expanded(section)}
    return names | set(family.table(config).other_heads)


def _pattern(path: str) -> re.Pattern:
    """Matches an attribute path; what stands in a hole `{name}` is a number."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(path)))


def _check_total(model, bindings: Iterable[Binding]) -> None:
    bound = [id(variable) for binding in bindings for variable in binding.variables]
    paths = {
        id(variable): f"{path}.{variable.name}" for path, layer in layers_by_path(model) for variable in layer.variables
    }
    twice = {paths[one] for one in bound if bound.count(one) > 1} if len(set(bound)) < len(bound) else set()
    never = {paths[id(variable)] for variable in checkpoint_variables(model)} - {paths[one] for one in bound}
    if twice or never:
        raise ValueError(f"the weight table binds twice: {sorted(twice)}, never: {sorted(never)}")

"""Dataclasses of arguments, filled from a YAML file and from flags on the command line.

Each field is a flag of the same name. Flags win over the file, the file wins over the defaults. Nothing is ignored: an
unknown flag or key is an error that names the nearest known one, and every value is checked before anything runs.
"""

import contextlib
import dataclasses
import difflib
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def argument(
    default: Any,
    help: str,
    *,
    also: Sequence[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    secret: bool = False,
) -> Any:
    """A field of a dataclass of arguments.

    Args:
        default: its value if neither the file nor the command line has it.
        help: one line for `--help`.
        also: other names for the same argument.
        at_least, above, at_most, below: the numbers that are accepted.
        secret: whether it is a password or token, which is never shown.
    """
    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    limits = {words: limit for words, limit in limits.items() if limit is not None}
    metadata = {"help": help, "also": tuple(also), "limits": limits, "secret": secret}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def parse(cls: type, arguments: Sequence[str] | None = None, program: str | None = None):
    """An instance of the dataclass `cls` from the words of a command line.

    Args:
        cls: a dataclass whose fields are made by `argument`.
        arguments: the words: optionally a YAML file, then flags (`--name value`, `--name=value`, `--name` and
            `--no_name` for switches); None for this process' own.
        program: the program's name for `--help`.

    Raises:
        ValueError: an unknown flag or key (names the nearest one), a value out of range, or an argument given twice.
        TypeError: a value of the wrong type.
        FileNotFoundError: the YAML file does not exist.
        SystemExit: after `--help`.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        sys.argv[1:] = without_secrets(cls, arguments)  # Weights & Biases records it, and so do reports of crashes
    arguments = list(arguments)
    if "--help" in arguments or "-h" in arguments:
        print(help_text(cls, program or Path(sys.argv[0]).name))
        raise SystemExit(0)
    given = {}
    if arguments and not arguments[0].startswith("--"):
        given = read_yaml(cls, arguments.pop(0))
    return build(cls, {**given, **read_flags(cls, arguments)})


def without_secrets(cls: type, words: Sequence[str]) -> list[str]:
    """The words of a command line with `***` in place of passwords and tokens."""
    secret = {
        name
        for field in dataclasses.fields(cls)
        if field.metadata["secret"]
        for name in (field.name, *field.metadata["also"])
    }
    shown, hides = [], False
    for word in words:
        flag, equals, _ = word.partition("=")
        is_secret = flag.startswith("--") and flag.removeprefix("--").replace("-", "_") in secret
        if hides and not word.startswith("--"):
            word = "***"
        elif is_secret and equals:
            word = f"{flag}=***"
        shown.append(word)
        hides = is_secret and not equals
    return shown


def parse_or_exit(cls: type, arguments: Sequence[str] | None = None):
    """As `parse`, for a program: an error is printed as one line and ends the process with status 2."""
    with mistakes_in_one_line():
        return parse(cls, arguments)


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """For a program: what is wrong with its arguments or its data is one line of text, and ends it with status 2."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError) as error:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        if isinstance(error, KeyError) and " " not in text:
            raise  # a bare key is a fault of the program
        print(f"{Path(sys.argv[0]).name}: error: {' '.join(text.split())}", file=sys.stderr)
        raise SystemExit(2) from None


def build(cls: type, given: Mapping[str, Any]):
    """An instance of `cls` from raw values: strings of a command line, or what YAML made of a file."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in given.items():
        values[name] = convert(name, value, hints[name])
        check_limits(name, values[name], fields[name].metadata["limits"])
    return cls(**values)


def read_yaml(cls: type, path: str) -> dict[str, Any]:
    """The arguments in a YAML file, under the names of the fields of `cls`; values as they stand there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, not a mapping, or with an unknown key.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the configuration file {path} does not exist; flags begin with --")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold lines of 'name: value', got {type(content).__name__}")
    given: dict[str, Any] = {}
    for key, value in content.items():
        name = known_name(cls, str(key), f"key {key!r} in {path}")
        if name in given:
            raise ValueError(f"{name} is given twice in {path}, the second time as {key!r}")
        given[name] = value
    return given


def read_flags(cls: type, words: Sequence[str]) -> dict[str, Any]:
    """The flags on a command line, under the names of the fields of `cls`; values as strings, lists or booleans."""
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = {}
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word!r} is not a flag, flags begin with -- and a configuration file comes first")
        flag, equals, value = word[2:].partition("=")
        flag = flag.replace("-", "_")
        positive = flag.removeprefix("no_")
        negated = positive != flag and positive in hints and _is_switch(hints[positive])
        name = known_name(cls, positive if negated else flag, f"flag --{flag}")
        if name in given:
            raise ValueError(f"--{name} is given twice, the second time as {word!r}")
        if not equals:
            values = []
            while words and not words[0].startswith("--"):
                values.append(words.pop(0))
            value = _single(name, values, hints[name], negated)
        elif negated:
            raise ValueError(f"--{flag} takes no value, got {value!r}")
        given[name] = value
    return given


def _single(name: str, values: list[str], hint: Any, negated: bool) -> Any:
    """What the words after a flag give: a list for arguments that are lists, else one value."""
    if negated and values:
        raise ValueError(f"--no_{name} takes no value, got {values[0]!r}")
    if not values and _is_switch(hint):
        return not negated
    if not values:
        raise ValueError(f"--{name} needs a value: {described(hint)}")
    if len(values) > 1 and not any(typing.get_origin(option) is list for option in _options(hint)):
        raise ValueError(f"--{name} takes one value, got {' '.join(map(repr, values))}")
    return values if len(values) > 1 else values[0]


def known_name(cls: type, name: str, where: str) -> str:
    """The field that goes by `name`.

    Raises:
        ValueError: there is none; says why, if `cls` has a function `refusal` that knows, or names the nearest one.
    """
    names = {field.name: field.name for field in dataclasses.fields(cls)}
    for field in dataclasses.fields(cls):
        names.update(dict.fromkeys(field.metadata["also"], field.name))
    if name not in names:
        reason = cls.refusal(name) if hasattr(cls, "refusal") else None
        if reason is not None:
            raise ValueError(f"{where} is not taken: {reason}")
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"{where} is not known, the nearest known one is {near!r}; --help lists all")
    return names[name]


def convert(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type that a field declares.

    Raises:
        TypeError: it cannot be read as that type.
        ValueError: it is not one of the choices.
    """
    options = _options(hint)
    if types.NoneType in options and (value is None or value in ("none", "null", "None")):
        return None
    for option in options:
        if option is not types.NoneType:
            try:
                return _converted(value, option)
            except (ValueError, TypeError):
                continue
    wrong_choice = all(typing.get_origin(option) is Literal or option is types.NoneType for option in options)
    raise (ValueError if wrong_choice else TypeError)(f"{name} must be {described(hint)}, got {value!r}")


def _converted(value: Any, kind: Any) -> Any:
    """`value` as one plain type, or ValueError or TypeError."""
    if typing.get_origin(kind) is Literal:
        return _one_of(value, typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return [_converted(item, typing.get_args(kind)[0]) for item in (value if isinstance(value, list) else [value])]
    if kind is dict or typing.get_origin(kind) is dict:
        pairs = value if isinstance(value, Mapping) else _pairs(value)
        return {name: _number(item) for name, item in pairs.items()}
    if kind is bool:
        return value if isinstance(value, bool) else _switch(value)
    if isinstance(value, bool | list | Mapping) or value is None:
        raise TypeError
    if kind is int:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError
        return int(value)
    return kind(value)


def _one_of(value: Any, choices: tuple) -> str:
    # YAML reads a bare `no` as False, and `no` is a choice of eval_strategy.
    value = {False: "no"}.get(value, value) if isinstance(value, bool) else value
    if value not in choices:
        raise ValueError
    return value


def _switch(value: Any) -> bool:
    word = str(value).lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError
    return word in TRUE


def _pairs(text: Any) -> dict[str, Any]:
    """`"a=1,b=x"`, or JSON as Hugging Face's scripts take it, as a dictionary; values as YAML reads them."""
    if not isinstance(text, str):
        raise TypeError
    if text.lstrip().startswith("{"):
        return dict(json.loads(text))
    pairs = dict(item.split("=", 1) for item in text.split(",") if item.strip())
    return {name.strip(): yaml.safe_load(value) for name, value in pairs.items()}


def _number(value: Any) -> Any:
    """The number that a text like 1e-7 is, which YAML takes for text as it has no point; other values as they are."""
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", value, re.IGNORECASE)
    return float(value) if is_number else value


def check_limits(name: str, value: Any, limits: Mapping[str, float]) -> None:
    """Raises ValueError if a number is not within `limits` ("at least", "above", "at most", "below")."""
    within = {
        "at least": lambda limit: value >= limit,
        "above": lambda limit: value > limit,
        "at most": lambda limit: value <= limit,
        "below": lambda limit: value < limit,
    }
    # Written so that a value that is not a number (nan) fails too.
    if isinstance(value, int | float) and not all(within[words](limit) for words, limit in limits.items()):
        accepted = " and ".join(f"{words} {limit:g}" for words, limit in limits.items())
        raise ValueError(f"{name} must be {accepted}, got {value}")


def described(hint: Any) -> str:
    """A type in words, for messages and `--help`."""
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        dict: "name=value,... or JSON",
    }
    parts = []
    for option in _options(hint):
        origin = typing.get_origin(option)
        if origin is Literal:
            parts.append("one of " + ", ".join(map(str, typing.get_args(option))))
        elif origin is list:
            parts.append("one or more of: " + described(typing.get_args(option)[0]).removeprefix("one of "))
        elif option is not types.NoneType:
            parts.append(words[origin or option])
    return " or ".join(parts)


def help_text(cls: type, program: str) -> str:
    """What `--help` prints: every argument with its type, its default and one line, in groups."""
    lines = [f"Usage: {program} [configuration.yaml] [--name value ...]", "", textwrap.dedent(cls.__doc__).strip(), ""]
    lines += ["Flags win over the file. A switch may be given alone, or as --no_name to turn it off.", ""]
    for group in [base for base in reversed(cls.__mro__) if "__annotations__" in base.__dict__]:
        lines += [group.__doc__.splitlines()[0], ""]
        for field in (field for field in dataclasses.fields(cls) if field.name in group.__annotations__):
            lines += _help_lines(field, typing.get_type_hints(cls)[field.name])
        lines.append("")
    return "\n".join(lines).rstrip()


def _help_lines(field: dataclasses.Field, hint: Any) -> list[str]:
    default = field.default_factory() if field.default is dataclasses.MISSING else field.default
    names = ", ".join(f"--{name}" for name in (field.name, *field.metadata["also"]))
    default = "" if default in (None, "", [], {}) else f", default {_plain(default)}"
    text = f"{field.metadata['help']} ({described(hint)}{default})"
    return [f"  {names}", *textwrap.wrap(text, 110, initial_indent="      ", subsequent_indent="      ")]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _options(hint: Any) -> tuple:
    """The alternatives of a type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _is_switch(hint: Any) -> bool:
    return bool in _options(hint)

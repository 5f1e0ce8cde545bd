"""Writes `tfheads/__init__.pyi`, which shows editors the classes that the registry makes: `python -m tfheads.stub`."""

from pathlib import Path

import tfheads
from tfheads import registry

STUB = Path(__file__).with_name("__init__.pyi")


def stub() -> str:
    """The text of the stub."""
    imports, classes, aliases = [], [], []
    for cls in registry.TASKS.values():
        imports.append(f"from {cls.__module__} import {cls.__name__} as {cls.__name__}")
        aliases.append(f"{cls.auto_name} = {cls.__name__}")
    imports += [f"from tfheads import {name} as {name}" for name in tfheads.MODULES]
    for name, place in tfheads.LAZY.items():
        module, _, attribute = place.partition(":")
        imports.append(f"from {module} import {attribute or name} as {attribute or name}")
        aliases += [f"{name} = {attribute}"] if attribute else []
    for name, cls in registry.CLASSES.items():
        if cls.family is not None and name == cls.__name__:
            classes.append(f"class {name}({registry.TASKS[cls.task].__name__}): ...")
        elif cls.family is not None:
            aliases.append(f"{name} = {cls.__name__}")
        aliases.append(f"TF{name} = {cls.__name__}")
    parts = ["# Made by `python -m tfheads.stub`; a test compares.", imports, "__version__: str", classes, aliases]
    return "\n\n".join(part if isinstance(part, str) else "\n".join(part) for part in parts) + "\n"


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")

"""transformers without PyTorch: its configs import PyTorch where it is installed, which takes seconds and memory."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator

NAME = "torch"
DTYPES = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "half", "float", "double")


class Deferred(types.ModuleType):
    """A module that is imported when something in it is asked for."""

    def __getattr__(self, name: str):
        if name.startswith("__"):  # asked by who looks at all modules, such as `inspect`
            raise AttributeError(f"{self.__name__} is not imported yet, so it has no {name}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class DtypeNames(Deferred):
    """PyTorch as configs need it: a dtype is its name."""

    def __getattr__(self, name: str):
        return name if name in DTYPES else super().__getattr__(name)


@contextlib.contextmanager
def torch_deferred(kind: type[Deferred] = Deferred) -> Iterator[None]:
    """Scope in which modules that import PyTorch get it when they first use it; nothing where it is imported already.

    After it, `import torch` is what it always was.

    Args:
        kind: of the module that stands for PyTorch.
    """
    if NAME in sys.modules or importlib.util.find_spec(NAME) is None:
        yield
        return
    stand_in = kind(NAME)
    stand_in.__spec__ = importlib.machinery.ModuleSpec(NAME, None)
    sys.modules[NAME] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(NAME) is stand_in:
            del sys.modules[NAME]

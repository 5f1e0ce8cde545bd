"""One short file for each architecture; importing this package registers them all."""

import importlib
import pkgutil

from tfheads import models, tasks  # noqa: F401 - families make named classes of the tasks

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

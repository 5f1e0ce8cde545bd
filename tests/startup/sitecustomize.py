"""Every Python process of the tests starts with this: imports take a third less time.

Keras is imported without scikit-learn and matplotlib: it looks for them at once, which takes a second or two, and needs
them for wrappers and pictures alone. Whoever else imports them gets them. The collector of garbage, which finds none
among what is imported, looks for it less often.
"""

import gc
import sys


class NotForKeras:
    """Says that a module is not installed while Keras is being imported."""

    def find_spec(self, name, path=None, target=None):
        keras = sys.modules.get("keras")
        if name in ("matplotlib", "sklearn") and keras is not None and keras.__spec__._initializing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NotForKeras())
gc.set_threshold(200_000, 10, 10)

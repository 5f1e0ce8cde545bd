"""Imports TensorFlow without the lines that its libraries print before they know a log level; for scripts only.

They are written by C++ to the standard error stream, past Python and past TF_CPP_MIN_LOG_LEVEL.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def import_quietly() -> None:
    """Imports TensorFlow while the standard error stream goes nowhere; what Python raises is still seen."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow
            import tensorflow_text  # noqa: F401

            tensorflow.config.list_physical_devices()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


import_quietly()

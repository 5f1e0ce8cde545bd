"""Starts TensorFlow for a script: with memory that is kept from step to step, and without lines that nobody needs.

Memory: larger tensors would be fetched from the operating system in each step and given back, which on a CPU is a fifth
of the time of a small model's step. TensorFlow keeps what it once had, all of it until the program ends.

Lines: C++ writes them to the standard error stream, past Python and past TF_CPP_MIN_LOG_LEVEL, before it knows a level.
"""

import os
import sys

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(MEMORY // 2**20))  # it would end at 64 GB


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

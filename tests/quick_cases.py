"""Which cases of a parametrized test are quick; the others wait for `make test-slow`."""

from collections.abc import Callable, Collection, Iterable, Sequence

import pytest


def slow_but_these(quick: Collection, cases: Iterable) -> list:
    """Cases of which some are quick."""
    return [case if case in quick else _slow(case) for case in cases]


def slow_but_first(cases: Sequence, key: Callable) -> list:
    """Cases of which the first with each value of the key is quick."""
    return slow_but_these({key(case): case for case in reversed(cases)}.values(), cases)


def _slow(case):
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)

"""Which cases of a parametrized test are quick; the others wait for `make test-slow`."""

from collections.abc import Callable, Collection, Iterable

import pytest


def slow_but_these(quick: Collection, cases: Iterable) -> list:
    """Cases of which some are quick."""
    return [case if case in quick else _slow(case) for case in cases]


def slow_but_first(cases: Iterable, *keys: Callable) -> list:
    """Cases of which the first with a new value of one of the keys is quick."""
    seen, found = set(), []
    for case in cases:
        new = {(key, key(case)) for key in keys} - seen
        found.append(case if new else _slow(case))
        seen |= new
    return found


def _slow(case):
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)

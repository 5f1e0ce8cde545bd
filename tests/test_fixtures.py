"""The stored reference outputs: complete, and consistent with the rules that the suite rebuilds them by."""

import numpy as np
import pytest
import transformers

from tests.fixtures import batches, cases, reference, weights


def test_every_case_has_a_record_and_every_record_a_case():
    stored = {
        path.relative_to(reference.FOLDER).with_suffix("").as_posix() for path in reference.FOLDER.glob("*/*.json")
    }
    assert stored == {*cases.CASES, *cases.TRAINING, *(f"{kind}/config_effects" for kind in cases.EFFECTS)}


def test_the_weight_rule_has_not_changed():
    value = weights.weight("transformer.h.0.ln_1.weight", [2])
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, [0.8424565, 0.8122609], rtol=1e-6)
    head = weights.weight("lm_head.weight", [1, 2], scale=0.02)
    np.testing.assert_allclose(head, [[0.005727223, 0.006654737]], rtol=1e-6)


@pytest.mark.parametrize("name", reference.names())
def test_a_record_rebuilds_its_config_and_its_inputs(name):
    record = reference.load(name)
    config = transformers.AutoConfig.for_model(**record["config"])
    _assert_holds(config, cases.CASES[name]["config"])
    for kind, stored in record["forward"].items():
        inputs = batches.example(kind, record["class"], record["model_type"], cases.CASES[name]["config"])
        for key, array in stored["inputs"].items():
            np.testing.assert_allclose(inputs[key], array, rtol=1e-6)  # numbers are stored with 7 digits
    owners = {parameter: entry["tied_to"] or parameter for parameter, entry in record["parameters"].items()}
    may_lack = {parameter for parameter, entry in record["parameters"].items() if "fixed" in entry}
    written = {owners[entry.get("parameter", entry["name"])] for entry in record["exported"]}
    assert set(owners.values()) - may_lack <= written <= set(owners.values())


def _assert_holds(config, entries: dict) -> None:
    for key, value in entries.items():
        if isinstance(value, dict) and isinstance(getattr(config, key), dict):
            assert {**getattr(config, key), **value} == getattr(config, key)
        elif isinstance(value, dict):
            _assert_holds(getattr(config, key), value)
        else:
            assert getattr(config, key) == value


def test_difference_sees_real_positions_only():
    stored = np.zeros((1, 3, 13))
    changed = stored.copy()
    changed[0, 2] = 1.0
    assert reference.difference(changed, stored, [[1, 1, 0]]) == 0.0
    assert reference.difference(changed, stored, [[1, 1, 1]]) == 1.0
    assert reference.difference(changed * np.nan, stored) == float("inf")
    with pytest.raises(AssertionError, match="shape"):
        reference.difference(changed[:, :2], stored)

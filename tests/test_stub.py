"""The stub that editors read is what the registry makes today."""

import tfheads
from tfheads import registry
from tfheads.stub import STUB, stub


def test_the_stub_is_current():
    assert STUB.read_text(encoding="utf-8") == stub()


def test_the_stub_names_every_public_class():
    text = stub()
    for name in [*registry.CLASSES, *tfheads.LAZY]:
        assert f" {name}\n" in text or f"class {name}(" in text or f"{name} = " in text

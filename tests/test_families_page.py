"""docs/families.md is what the registry and the fixtures say today."""

from tests.families_page import PAGE, page
from tfheads import registry


def test_the_page_of_families_is_current():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_page_names_every_class_of_every_family():
    text = page()
    for name, cls in registry.CLASSES.items():
        assert cls.family is None or f"`{name}`" in text

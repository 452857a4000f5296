"""The pages that are made from code say what the code does."""

import re

import pytest

from tests.harness.references import REFERENCES, ROOT


@pytest.mark.parametrize("name", REFERENCES)
def test_a_page_that_is_made_from_code_is_current(name: str) -> None:
    """If this fails: `./run reference`."""
    assert (ROOT / name).read_text() == REFERENCES[name]()


@pytest.mark.parametrize("name", [name for name in REFERENCES if name.endswith(".varlink")])
def test_an_interface_says_nothing_twice(name: str) -> None:
    """Of an error varlink has the words as well."""
    assert re.findall(r"^(#.*\n)\1", (ROOT / name).read_text(), re.MULTILINE) == []

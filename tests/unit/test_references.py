"""The pages that are made from code say what the code does."""

import pytest

from tests.harness.references import REFERENCES, ROOT


@pytest.mark.parametrize("name", REFERENCES)
def test_a_page_that_is_made_from_code_is_current(name: str) -> None:
    """If this fails: `./run reference`."""
    assert (ROOT / name).read_text() == REFERENCES[name]()

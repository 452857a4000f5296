"""The pages that the Debian packages bring lead nobody to what they have not brought."""

from pathlib import Path
from typing import Final

import pytest

from tests.harness.documents import ROOT, links, pages
from vagrant.packages.stage import FOLDERS, LIBRARY, MORE_PAGES, linked

PACKAGED: Final = [page for page in pages() if page.split("/")[0] in FOLDERS or page in MORE_PAGES]


@pytest.mark.parametrize("page", PACKAGED)
def test_links_of_a_packaged_page_lead_to_what_is_packaged(page: str) -> None:
    """To other pages, or to files that the packages have in /usr/lib/vsfwd."""
    for to in links(linked((ROOT / page).read_text(), Path(page), ROOT)):
        if to.startswith("/"):
            path = Path(to).relative_to("/" / LIBRARY)
            assert path.parts[0] in FOLDERS
            assert (ROOT / path).exists(), to
        else:
            where = (ROOT / page).parent / to
            assert str(where.resolve().relative_to(ROOT)) in PACKAGED, to


def test_of_a_link_that_leads_nowhere_the_words_stay() -> None:
    """What leads somewhere stays as it is; a file lies elsewhere than the page."""
    text = "[a](../tests/README.md#x) [b](OPERATE.md#y) [c](vsfwd.toml) [d](#z) [e](https://e.example/)"
    found = linked(text, Path("vsfwd/INSTALL.md"), ROOT)
    assert found == "a [b](OPERATE.md#y) [c](/usr/lib/vsfwd/vsfwd/vsfwd.toml) [d](#z) [e](https://e.example/)"

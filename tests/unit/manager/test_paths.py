"""The page of the REST interface's calls."""

from manager_stub.api import paths
from tests.harness.references import PATHS, ROOT
from tests.unit.manager.rest import Manager


async def test_the_page_of_calls_is_current(manager: Manager) -> None:
    """If this fails: `./run reference`."""
    assert (ROOT / PATHS).read_text() == paths.page(await manager.call("GET", "/openapi.json"))

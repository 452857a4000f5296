"""The link to the manager without a broker: what it makes of a message. With one: tests/integration."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from vsfwd.broker import BrokerLink


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"id":"\xff","method":"report"}', b'{"x":' + b"[" * 100_000],
    ids=["empty", "no request", "no text", "depth"],
)
async def test_a_request_that_cannot_be_read_goes_to_the_dead_letters(body: bytes) -> None:
    """It would come again for ever if it ended the session or the daemon."""
    nobody = cast(Any, None)
    link = BrokerLink(cast(Any, SimpleNamespace(host_id="host", broker_urls=())), nobody, nobody, nobody)
    assert await link._take_request(cast(Any, SimpleNamespace(body=body))) is False

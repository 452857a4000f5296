"""Early drops as local clients ask for them (`ipc.interface`): checked here, compiled beside
the apply thread and done on it, and in the log with the user who asked, since they stand above all policy."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

import vsfwd.ipc.interface as api
from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, DatapathError
from vsfwd.image import PrefixKey
from vsfwd.policy.bits import prefixes_of
from vsfwd.rows import early_row

log = structlog.get_logger(log="vsfwd.early")

MAX_RATE: Final = 1_000_000
"""Packets a second; above, rounding what a token costs (`struct limit`) would be more than a tenth."""
MAX_BURST: Final = 2**32 - 1


class EarlyDrops:
    """Of this host. Owns nothing: the devices do."""

    def __init__(self, datapath: Datapath, apply_thread: ApplyThread) -> None:
        self._datapath = datapath
        self._apply_thread = apply_thread

    async def all(self) -> list[api.EarlyDrop]:
        return [early_row(drop) for drop in await self._apply_thread(self._datapath.early.all)]

    async def attach(self, device: str, blocked: Sequence[str], rate: int, burst: int, uid: int) -> None:
        """Raises Refused, also for what the kernel refuses."""
        try:
            prefixes = _checked(blocked, rate, burst)
        except ValueError as error:
            raise api.Refused(reason=f"early drop on {device}: {error}") from None
        await self._do(asyncio.to_thread, self._datapath.early.compile)
        await self._do(self._apply_thread, self._datapath.early.attach, device, prefixes, rate, burst)
        log.warning(
            "early drop attached", device=device, blocked=len(prefixes), rate=rate, burst=burst, uid=uid
        )

    async def detach(self, device: str, uid: int) -> None:
        await self._do(self._apply_thread, self._datapath.early.detach, device)
        log.warning("early drop detached", device=device, uid=uid)

    async def _do(self, thread: Callable[..., Awaitable[object]], *work: object) -> None:
        try:
            await thread(*work)
        except DatapathError as error:
            raise api.Refused(reason=str(error)) from None


def _checked(blocked: Sequence[str], rate: int, burst: int) -> tuple[PrefixKey, ...]:
    """Raises ValueError."""
    if not 0 <= rate <= MAX_RATE:
        raise ValueError(f"rate: {rate} is not in 0-{MAX_RATE} packets a second")
    if not bool(rate) <= burst <= MAX_BURST:
        raise ValueError(f"burst: {burst} is not in 1-{MAX_BURST} packets")
    if not blocked and not rate:
        raise ValueError("neither a prefix nor a rate, so there is nothing to drop")
    return tuple({prefix: None for text in blocked for prefix in prefixes_of(text)})

"""The manager's process: the web server all the time, and beside it a term whenever it is this manager's turn
to lead. The named tasks are begun here; if one ends, all end."""

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

import structlog
from sqlalchemy.exc import OperationalError

from manager_stub.api.front import Front
from manager_stub.api.interface import interface
from manager_stub.app import compose
from manager_stub.config import Config, split
from manager_stub.lead import RENEW_S, Lead, Lost
from manager_stub.rotation import Rotation
from manager_stub.state_dir import StateDir
from manager_stub.store import TooMuch
from manager_stub.web import WebServer
from vsfwd import configfile
from vsfwd.configfile import ConfigError

LEASES_S: Final = 5.0
"""How often is looked for leases that have ended."""
MOVES_S: Final = 1.0
"""How often is looked for moves that take too long."""
STATISTICS_S: Final = 60.0
"""How often is written down what rules have counted."""
CONFIRMATION_S: Final = 0.5
"""How often is looked for a publish that nobody confirmed in time."""

log = structlog.get_logger()


async def _every(seconds: float, act: Callable[[], object]) -> NoReturn:
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except OperationalError as error:  # of SQLite, whose disk is full: what is to be written waits
            log.error("the database fails; tried again", reason=str(error.orig))


async def serve(directory: StateDir, reread: Callable[[], Config]) -> None:
    """Until a signal says to end, or something fails that is no matter of who leads. `reread` reads the
    configuration again."""
    front, lead = Front(), directory.lead()
    host, port = split(directory.config.listen)
    server = WebServer(front, (host, port), directory.path / "server.crt", directory.path / "server.key")

    rotation = Rotation(directory.path, {"server": server.tls})

    def end() -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _compare, directory.config, reread)
    log.info("the manager serves", address=f"https://{host}:{port}")
    web = asyncio.create_task(server.run_until_exit(), name="web")
    others = [
        asyncio.create_task(_terms(directory, front, lead), name="terms"),
        asyncio.create_task(rotation.follow(), name="server's certificate"),
    ]
    try:
        done, _ = await asyncio.wait([web, *others], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # Whatever ended first, on a signal the web server, the others have nothing to do alone.
        end()
        for task in others:
            task.cancel()
        await asyncio.gather(web, *others, return_exceptions=True)


def _compare(config: Config, reread: Callable[[], Config]) -> None:
    """All of it is read at the start: what differs by now is said."""
    try:
        _, left = configfile.changed(config, reread())
    except ConfigError as error:
        log.error("the configuration has a mistake", reason=str(error))
    else:
        log.info("the configuration is read at the start only", needs_a_restart=left)


async def _terms(directory: StateDir, front: Front, lead: Lead | None) -> None:
    """Lead whenever it is this manager's turn; alone on a database, always."""
    if lead is None:
        await _term(directory, front, None)
        return
    loop = asyncio.get_running_loop()
    try:
        while True:
            over = asyncio.Event()
            try:
                if await asyncio.to_thread(lead.take, partial(loop.call_soon_threadsafe, over.set)):
                    log.info("this manager leads", epoch=lead.epoch)
                    await _term(directory, front, lead, over)
            except* (Lost, TooMuch) as lost:  # what a term begins with may be too much, too
                lead.end(str(lost.exceptions[0]))
                log.warning("this manager does not lead", reason=str(lost.exceptions[0]))
            front.leader = lead.leader
            await asyncio.sleep(RENEW_S)
    finally:
        lead.give_back()
        lead.close()


async def _term(
    directory: StateDir, front: Front, lead: Lead | None, over: asyncio.Event | None = None
) -> None:
    """Everything there is is made anew, from the database. Raises Lost."""
    parts = compose(directory, lead)
    rotation = Rotation(directory.path, {"amqp": parts.broker_tls})
    tasks = [
        asyncio.create_task(parts.publisher.run(), name="publisher"),
        asyncio.create_task(_every(LEASES_S, parts.vnics.expire), name="leases"),
        asyncio.create_task(_every(MOVES_S, parts.moves.expire), name="moves"),
        asyncio.create_task(_every(MOVES_S, parts.pulls.expire), name="pulls"),
        asyncio.create_task(_every(STATISTICS_S, parts.statistics.save), name="statistics"),
        asyncio.create_task(_every(CONFIRMATION_S, parts.publishing.expire), name="confirmation"),
        *([asyncio.create_task(over.wait(), name="lead")] if over else []),
        asyncio.create_task(rotation.follow(), name="broker session's certificate"),
    ]
    front.app = interface(parts, directory)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        front.app = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.broker.close()
        if lead is None or lead.is_mine:
            parts.statistics.save()
        parts.store.close()

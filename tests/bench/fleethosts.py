"""Many hosts in one process, for `fleet.py`: the daemon's link and reconciler each, without a kernel.

What to be stands on standard input: one JSON array of `Simulated`. What happened goes to standard output, a
JSON array a line: number of the host, "delta" or "snapshot", its generation, and when it was in force (ns,
monotonic). It ends when its input does.
"""

import asyncio
import gc
import logging
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import structlog

import vsfwd.reconciler
from tests.harness.simulated import SimulatedHost, Took
from vsfwd.applythread import ApplyThread
from vsfwd.config import Config
from vsfwd.protocol.messages import Binding


class Simulated(msgspec.Struct):
    number: int
    config: Config
    vnics: tuple[Binding, ...]


def decoded(text: bytes) -> list[Simulated]:
    return msgspec.json.decode(text, type=list[Simulated], dec_hook=lambda _, value: Path(value))


def encoded(hosts: list[Simulated]) -> bytes:
    return msgspec.json.encode(hosts, enc_hook=str)


async def _run(hosts: list[Simulated]) -> None:
    apply_thread = ApplyThread()
    loop = asyncio.get_running_loop()
    lines: list[Any] = []

    def write() -> None:
        sys.stdout.buffer.writelines(msgspec.json.encode(line) + b"\n" for line in lines)
        sys.stdout.buffer.flush()
        lines.clear()

    def reporter(number: int) -> Any:
        def took(host: SimulatedHost, what: Took) -> None:
            if not lines:
                loop.call_later(0.01, write)
            lines.append((number, what.kind, what.state.generation, what.at_ns))

        return took

    running = [
        asyncio.create_task(SimulatedHost(each.config, each.vnics, apply_thread, reporter(each.number)).run())
        for each in hosts
    ]
    # No thread waits for that: it would keep the process, and what has failed in it, when a host fails.
    ended = asyncio.create_task(asyncio.Event().wait())
    loop.add_reader(sys.stdin, ended.cancel)
    await asyncio.wait([*running, ended], return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def main() -> None:
    # Each daemon has a log, a heap to give back and a host's share of objects to look for cycles among.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable()
    gc.disable()
    vsfwd.reconciler.give_back = lambda: None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_run(decoded(sys.stdin.buffer.readline())))


if __name__ == "__main__":
    main()

"""The pages that are made from code. `./run reference` writes them anew, `tests/unit/test_references.py` says
whether that is due."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from manager_stub import metrics as metrics_of_manager
from manager_stub.api import paths
from manager_stub.state_dir import StateDir
from tests.harness.manager import alone
from tests.unit.manager.rest import Manager
from vsfwd.ctl import metrics, pages
from vsfwd.datapath import reasons
from vsfwd.ipc.bus_interface import BusInterface
from vsfwd.ipc.description import description
from vsfwd.ipc.interface import HostInterface
from vsfwd.ipc.migration_interface import MigrationInterface
from vsfwd.protocol import asyncapi

ROOT: Final = Path(__file__).parents[2]
OF_HOSTS: Final = ("vsfwctl", "vsfwd", "vsfw-context-agent", "vsfw-control-plane-agent")
PATHS: Final = "manager_stub/api/PATHS.md"
REFERENCES: Final[dict[str, Callable[[], str]]] = {
    "manager_stub/COMMANDS.md": lambda: pages.page("Commands of the manager", "vsfw-manager"),
    "manager_stub/METRICS.md": metrics_of_manager.page,
    "vsfwd/COMMANDS.md": lambda: pages.page("Commands", *OF_HOSTS),
    "vsfwd/DROPS.md": reasons.page,
    "vsfwd/METRICS.md": metrics.page,
    "vsfwd/ipc/io.vsfwd.Bus.varlink": lambda: description(BusInterface),
    "vsfwd/ipc/io.vsfwd.Host.varlink": lambda: description(HostInterface),
    "vsfwd/ipc/io.vsfwd.Migration.varlink": lambda: description(MigrationInterface),
    "vsfwd/protocol/asyncapi.json": asyncapi.text,
}
"""All but PATHS, which needs a manager."""


async def calls() -> str:
    with TemporaryDirectory() as directory:
        state = StateDir(alone(Path(directory)))
        manager = Manager(state, state.create())
        try:
            return paths.page(await manager.call("GET", "/openapi.json"))
        finally:
            await manager.close()


if __name__ == "__main__":
    for name, text in REFERENCES.items():
        (ROOT / name).write_text(text())
    (ROOT / PATHS).write_text(asyncio.run(calls()))

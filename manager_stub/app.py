"""The composition root: makes every part, gives each what it needs, and runs the named tasks. If one ends,
all end."""

import asyncio
from dataclasses import dataclass
from importlib.metadata import version

import structlog
import uvicorn
from fastapi import FastAPI

from manager_stub.api import errors, hosts, infra, inventory
from manager_stub.auth import Guard, Passwords
from manager_stub.broker import Broker
from manager_stub.publisher import Publisher
from manager_stub.register import Register
from manager_stub.state_dir import StateDir, split
from manager_stub.store import Store

log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    store: Store
    register: Register
    broker: Broker
    publisher: Publisher
    web: Guard


def compose(directory: StateDir) -> Parts:
    addresses = directory.addresses()
    broker_url = f"amqps://{addresses.broker}"
    store = directory.open_store()
    register = Register(store, directory.signing_key())
    broker = Broker(addresses.broker_api, directory.broker_password(), directory.broker_tls())
    publisher = Publisher(register, broker, broker_url, directory.broker_tls())
    app = FastAPI(title="vsfwd manager", version=version("vsfwd"))
    app.include_router(infra.router(register))
    app.include_router(inventory.router(register))
    app.include_router(
        hosts.router(register, directory.authority(), broker, directory.signing_public(), [broker_url])
    )
    errors.install(app)
    return Parts(store, register, broker, publisher, Guard(app, Passwords(store.users())))


async def serve(directory: StateDir) -> None:
    parts = compose(directory)
    host, port = split(directory.addresses().listen)
    server = uvicorn.Server(
        uvicorn.Config(
            parts.web,
            host=host,
            port=port,
            ssl_certfile=directory.path / "server.crt",
            ssl_keyfile=directory.path / "server.key",
            log_config=None,
            lifespan="off",
        )
    )
    publishing = asyncio.create_task(parts.publisher.run(), name="publisher")
    web = asyncio.create_task(server.serve(), name="web")
    try:
        log.info("the manager serves", address=f"https://{host}:{port}")
        done, _ = await asyncio.wait((publishing, web), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # The web server ends by itself on a signal; whatever ended first, the other has nothing to do alone.
        server.should_exit = True
        publishing.cancel()
        await asyncio.gather(publishing, web, return_exceptions=True)
        await parts.broker.close()
        parts.store.close()

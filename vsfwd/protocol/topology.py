"""Names on the broker. The manager declares all of it; a host only looks up its own queues.

manager ──► vsfw.cmd (topic) ── host.<id>.policy ──► vsfw.host.<id>       policy, nothing else
                             ── host.<id>.app    ──► vsfw.host.<id>.app   everything else
host    ──► vsfw.evt (topic) ── host.<id>.<kind> ──► vsfw.mgr.state       what hosts report
                                                 ──► vsfw.mgr.components  what their components say
                                                 ──► vsfw.mgr.moves       VMs that change their host
broker  ──► amq.rabbitmq.event                   ──► vsfw.mgr.presence    who comes, goes, is not let in
refused messages of any queue ──► vsfw.dead (fanout) ──► vsfw.dead
"""

from typing import Final

VHOST: Final = "vsfw"
COMMANDS: Final = "vsfw.cmd"
EVENTS: Final = "vsfw.evt"
DEAD: Final = "vsfw.dead"
MANAGER_QUEUE: Final = "vsfw.mgr.state"
COMPONENT_QUEUE: Final = "vsfw.mgr.components"
"""Of its own, so that a component which floods pushes out no host's report."""
MOVE_QUEUE: Final = "vsfw.mgr.moves"
"""Of its own: what a VM takes along is bulk."""
MOVE: Final = "move"
"""What both sides say of moves (`migration`), as the kind of an order and in a host's key."""
PRESENCE_QUEUE: Final = "vsfw.mgr.presence"
"""What the broker itself says, of `BROKER_EVENTS`."""
BROKER_EVENTS: Final = "amq.rabbitmq.event"
MANAGER_USER: Final = "manager"

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of one message on the wire; a larger one is refused before anything of it is decoded."""
MAX_DECODED: Final = 64 * 1024 * 1024
"""Bytes a body may have after decompression."""
DELIVERY_LIMIT: Final = 5


def policy_queue(host: str) -> str:
    return f"vsfw.host.{host}"


def app_queue(host: str) -> str:
    return f"vsfw.host.{host}.app"


def owner_of(queue: str) -> str:
    """The host whose queue it is; empty: nobody's."""
    host = queue.removeprefix(policy_queue(""))
    return host.removesuffix(".app") if queue != host else ""


def host_of_queue(queue: str) -> str:
    """Whose policy queue it is; empty: nobody's."""
    host = owner_of(queue)
    return host if queue == policy_queue(host) else ""


def policy_key(host: str) -> str:
    return f"host.{host}.policy"


def app_key(host: str) -> str:
    return f"host.{host}.app"


def event_key(host: str, kind: str) -> str:
    """`kind` is one of `messages.EVENTS` or of `components.KINDS`, or `MOVE`."""
    return f"host.{host}.{kind}"


def login(host: str, enrolment: int) -> str:
    """The host's user at the broker, which is the common name of its certificate: another one each time it is
    enrolled, so that certificates of before end with the user of before."""
    return host if enrolment == 1 else f"{host}.{enrolment}"


def host_of(login: str) -> str:
    return login.partition(".")[0]

"""Components of a host and the manager, over the real broker: asked by REST, served by the program in
vsfwd/ipc/README.md; and what a component that floods, or does not read, does to everybody else: nothing."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.documents import blocks, by_shell, commands, session
from tests.harness.lab import World, allow
from vagrant.lab.probe import Seen
from vagrant.lab.rest import request
from vagrant.lab.waiting import wait_until
from vsfwd import identity

pytestmark = pytest.mark.slow

COMPONENTS = "/api/v1/vsfw/components"
FLOODING, BLOCKED = 64101, 64102
"""Users whom nobody is."""
CONFIGURATION = f"""
[components.hello]
topics = ["hello", "hello.*"]

[components.flood]
users = [{FLOODING}]
topics = ["flood"]

[components.blocked]
users = [{BLOCKED}]
topics = ["blocked"]
"""
AS_USER = """
import json, os, socket, sys
path, uid, method, component = os.open(sys.argv[1], os.O_PATH), int(sys.argv[2]), *sys.argv[3:]
os.setgroups([])
os.setresuid(uid, uid, uid)
def connected():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"/proc/self/fd/{path}")
    return connection
def say(connection, **parameters):
    call = {"method": "io.vsfwd.Bus." + method, "more": method == "Subscribe"}
    parameters |= {"component": component}
    connection.sendall(json.dumps(call | {"parameters": parameters}).encode() + b"\\0")
"""
"""Speaks for a user of its own, who is let through to the socket by a descriptor of root's."""
FLOOD = """
connections = [connected() for _ in range(20)]
while True:
    for each in connections:
        say(each, topic=component, body={"x": "x" * 10_000})
    for each in connections:
        each.recv(65536)
"""
BLOCK = """
connection = connected()
say(connection, topics=[component])
connection.recv(65536)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def configured(shared_world: World) -> Iterator[None]:
    """Both hosts know these components; what is written into their configuration goes again."""
    world = shared_world
    files = {host.name: host.directory / "vsfwd.toml" for host in world.lab.layout.hosts}
    before = {name: path.read_text() for name, path in files.items()}
    for name, path in files.items():
        path.write_text(before[name] + CONFIGURATION)
        world.lab.kill_vsfwd(name)
        world.lab.start_vsfwd(name)
    wait_until(lambda: is_nowhere(world, "hello"), "vsfwd of both hosts answers", 60)
    yield
    for name, path in files.items():
        path.write_text(before[name])
        world.lab.kill_vsfwd(name)
        world.lab.start_vsfwd(name)


@pytest.fixture
def components(configured: None, world: World) -> World:
    return world


def is_nowhere(world: World, component: str) -> bool:
    """Nobody listens, says vsfwd of every host."""
    found = send(world, component, "calls", all_hosts=True, timeout_s=2)
    return all("nobody there listens" in each["reason"] for each in found)


def send(world: World, component: str, kind: str, body: Any = None, **to: Any) -> list[Any]:
    """On the topic that has the component's name, unless `to` has another."""
    asked = {"topic": component, "body": body or {}, **to}
    found = request(world.lab.rest, "POST", f"{COMPONENTS}/{component}/{kind}", asked)
    return found["results"]  # type: ignore[no-any-return]


def said(world: World, component: str) -> list[Any]:
    found = request(world.lab.rest, "GET", f"{COMPONENTS}/{component}/messages")
    return found["results"]  # type: ignore[no-any-return]


@contextmanager
def running(*argv: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, *argv], stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def hello(world: World, host: str, directory: Path) -> Iterator[None]:
    """The program in the README, once it is answered."""
    (source,) = (block.text for block in blocks("vsfwd/ipc/README.md") if block.kind == "python")
    script = directory / "hello.py"
    script.write_text(source)
    there = world.lab.host(host)
    with running(str(script), str(there.socket)):
        wait_until(lambda: answers(world, there.id), "hello answers", 60)
        yield


def answers(world: World, host: str) -> bool:
    (found,) = send(world, "hello", "calls", {"n": 1}, hosts=[host])
    return bool(found["done"]) and found["body"] == {"you said": {"n": 1}}


def test_the_manager_asks_a_component_and_reads_what_it_says(components: World, tmp_path: Path) -> None:
    """By REST, through manager, broker and vsfwd, to a component on host2 and back; on host1 there is none,
    and that is said."""
    world = components
    before = said(world, "hello")
    with hello(world, "host2", tmp_path):
        found = {each["host"]["display_name"]: each for each in send(world, "hello", "calls", clusters=["c"])}
        assert found["host2"]["done"]
        assert found["host2"]["body"] == {"you said": {}}
        assert "nobody there listens" in found["host1"]["reason"]
        (here,) = (each for each in said(world, "hello") if each not in before)
        assert (here["host"]["display_name"], here["body"]) == ("host2", {"text": "here I am"})


def test_a_component_is_asked_as_shown(world: World) -> None:
    """At the shell, and by REST: both hosts of the cluster answer."""
    vm = {"topic": "vm", "clusters": ["c"]}
    wait_until(lambda: all(each["done"] for each in send(world, "context-agent", "calls", **vm)), "agents")
    (ask,) = commands("manager_stub/api/README.md", "Components")
    at_the_shell, _, by_rest = world.by_hand(ask).rpartition("\n{")
    assert "host1" in at_the_shell
    found = json.loads(f"{{{by_rest}")["results"]
    answers = {each["host"]["display_name"]: each["done"] for each in found}
    assert answers == {"host1": True, "host2": True}


def test_a_component_speaks_at_the_shell_as_shown(components: World) -> None:
    """It tells the manager something, answers what it is asked, and asks what nobody there answers."""
    publish, subscribe, call = session("vsfwd/ipc/README.md", "Other components of the host: io.vsfwd.Bus")
    there = components.lab.host("host1")
    vsfwctl = {"vsfwctl": [sys.executable, "-u", "-m", "vsfwd.ctl", "--socket", str(there.socket)]}
    assert by_shell(publish[0], vsfwctl).stdout.splitlines() == publish[1]
    asked = by_shell(call[0], vsfwctl)
    assert (asked.returncode, asked.stderr.splitlines()) == (1, call[1])
    script = f"exec {shlex.join(vsfwctl['vsfwctl'])} {subscribe[0].removeprefix('vsfwctl ')}"
    with subprocess.Popen(["bash", "-c", f"{script} 2>&1"], stdout=subprocess.PIPE, text=True) as listening:
        try:
            assert listening.stdout
            heard = [listening.stdout.readline().rstrip()]
            (answer,) = send(components, "hello", "calls", {"n": 1}, hosts=[there.id])
            heard.append(listening.stdout.readline().rstrip())
        finally:
            listening.kill()
    assert heard == subscribe[1]
    assert answer["body"] == {"ok": True}


def test_the_context_agent_tells_who_is_logged_on(world: World) -> None:
    """A hypervisor's hook writes what the guest of a says: the manager knows the computer's name, and who is
    logged on; and that nobody is, when it says so."""
    vm, guests = world.vm("a"), world.lab.host("host1").guests
    users = f"/api/v1/vsfw/vms/{vm.id}/users"

    def say(**guest: Any) -> None:
        (guests / "new").write_text(json.dumps(guest))
        (guests / "new").rename(guests / f"{vm.id}.json")

    def logged_on() -> list[str]:
        return [each["name"] for each in request(world.lab.rest, "GET", users)["results"]]

    say(computer_name="a.example.org", users=[{"name": "alice", "domain": "EXAMPLE"}])
    wait_until(lambda: logged_on() == ["alice"], "alice is logged on", 60)
    found = request(world.lab.rest, "GET", f"/api/v1/vsfw/vms/{vm.id}")
    assert found["computer_name"] == "a.example.org"
    say(computer_name="a")
    wait_until(lambda: logged_on() == [], "nobody is logged on", 60)
    (guests / f"{vm.id}.json").unlink()


def test_the_control_plane_agent_keeps_what_the_manager_gives_it(world: World) -> None:
    """It has the controllers and a certificate whose key came sealed; a new list comes by itself; the manager
    asks what it has. The broker does not know who has that certificate."""
    controllers, directory = "/api/v1/vsfw/controllers", world.lab.host("host2").directory / "control-plane"
    wait_until(lambda: (directory / "host.pem").exists(), "the certificate is there", 60)
    given = {"id": "two", "address": "fd00::1", "port": 4321}
    new = request(world.lab.rest, "PUT", controllers, {"controllers": [given]})["generation"]

    def status() -> Any:
        (found,) = send(
            world, "control-plane-agent", "calls", topic="status", hosts=[world.lab.host("host2").id]
        )
        return found["body"]

    wait_until(lambda: status().get("generation") == new, "the new list is there", 60)
    assert status()["controllers"] == [given]
    kept = json.loads((directory / "controllers.json").read_text())
    assert kept == {"generation": new, "controllers": [given]}
    pem = (directory / "host.pem").read_bytes()
    certificate = identity.load_certificate(pem)
    assert identity.load_key(pem).public_key() == certificate.public_key()
    assert status()["certificate"]["serial_number"] == f"{certificate.serial_number:x}"
    with world.lab.broker.client() as broker:
        users = {each["name"] for each in broker.get("/api/users").raise_for_status().json()}
    assert world.lab.host("host2").id in users
    assert identity.login_of(certificate) not in users


def test_o38_a_flood_and_a_client_that_does_not_read_delay_neither_policy_nor_others(
    components: World, tmp_path: Path
) -> None:
    """On host2 one component says what it can on twenty connections, another one is sent messages and reads
    none. A change of the policy is enforced, a third component answers, and only who does not read is cut
    off."""
    world = components
    host = world.lab.host("host2")
    with ExitStack() as stack:
        stack.enter_context(hello(world, "host2", tmp_path))
        for code, uid, method, name in (
            (FLOOD, FLOODING, "Publish", "flood"),
            (BLOCK, BLOCKED, "Subscribe", "blocked"),
        ):
            stack.enter_context(running("-c", AS_USER + code, str(host.socket), str(uid), method, name))
        wait_until(lambda: len(said(world, "flood")) > 50, "what is flooded comes", 60)

        def cut_off() -> bool:
            (found,) = send(world, "blocked", "messages", {"x": "x" * 15_000}, hosts=[host.id])
            return "does not read" in found["reason"]

        world.enforce(allow("a", "c", "tcp/80"))
        assert world.seen_all(("a", "c", "tcp/80"), ("a", "c", "tcp/81")) == [Seen.ALLOWED, Seen.DROPPED]
        wait_until(cut_off, "who does not read is cut off", 60)
        assert answers(world, host.id)
        world.enforce(allow("a", "c", "tcp/81"))
        assert world.seen_all(("a", "c", "tcp/81"), ("a", "c", "tcp/80")) == [Seen.ALLOWED, Seen.DROPPED]
        assert is_nowhere(world, "blocked")

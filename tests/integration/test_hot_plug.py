"""vNICs that are plugged while they and everybody else send: a vsfwd as it runs, on a bridge.

Nobody announces them before they are on the bridge."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.hotplug import (
    ALLOWED,
    BEFORE,
    FORBIDDEN,
    NEIGHBOUR_MAC,
    VNICS,
    End,
    arrived,
    hot_host,
    ip,
    mac,
    plug_unannounced,
    plugged,
    recognised,
)
from tests.harness.lone import LoneHost, refused_version
from tests.harness.policies import vnic_id
from tests.harness.programs import CHAINS, detach, program_name, take_all_off
from tests.harness.resources import Resources
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until
from vsfwd.datapath import bpf
from vsfwd.datapath.build import compile_text
from vsfwd.ipc.client import ask

pytestmark = pytest.mark.slow
LONG = pytest.mark.timeout(3600)
FEW, MANY = 12, 1000
CHAIN_LENGTH = 63
"""bpf_mprog_max() of linux/bpf_mprog.h."""


@pytest.fixture(scope="module")
def plugged_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneHost]:
    with hot_host(tmp_path_factory.mktemp("hotplug")) as host:
        yield host


@pytest.fixture
def host(plugged_host: LoneHost) -> LoneHost:
    """With a daemon that enforces, whatever the test before has done."""
    if plugged_host.daemon.process is None:
        plugged_host.daemon.start()
    return plugged_host


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=[pytest.mark.deep, LONG])])
def test_o8_no_frame_passes_a_new_vnic_before_its_policy(host: LoneHost, times: int) -> None:
    """In either direction: nothing as long as nobody says whose device it is, and then what its policy
    allows."""
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour:
        found = [plug_unannounced(host, neighbour, turn) for turn in range(times)]
    assert not [turn for turn, each in enumerate(found) if each.early]
    print(f"{times} vNICs: 0 of {sum(each.sent for each in found)} frames passed before policy")


def test_o9_a_device_that_goes_elsewhere_and_comes_back_is_filtered_all_the_time(host: LoneHost) -> None:
    """To another network namespace and back, under its number; renamed; made anew under its name, by which it
    is known: what its policy forbids never passes, what it allows does in the end."""
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        recognised(host, 0)

        def allowed() -> None:
            neighbour.got.clear()
            vm.got.clear()
            wait_until(
                lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30
            )
            assert not arrived(vm, neighbour, 0, (FORBIDDEN,))

        allowed()
        for _ in range(5):
            ip(host.namespace, f"link set hot0 netns {host.neighbour}")
            ip(host.neighbour, f"link set hot0 netns {host.namespace}")
            ip(host.namespace, "link set hot0 master bridge up")
            allowed()
            ip(host.namespace, "link set hot0 name hotter")
            ip(host.namespace, "link set hotter name hot0")
            allowed()
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        wait_until(lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30)
        assert not arrived(vm, neighbour, 0, (FORBIDDEN,))


@pytest.mark.parametrize("times", [40, pytest.param(MANY, marks=[pytest.mark.deep, LONG])])
def test_o37_vnics_that_come_and_go_leave_nothing(host: LoneHost, times: int) -> None:
    """No descriptor, no map, no pin, no port in the guard: the daemon has as many as before."""
    before, others = None, protected(host)
    for turns in (VNICS, times):
        for start in range(0, turns, VNICS):
            numbers = range(min(VNICS, turns - start))
            ip(
                host.namespace,
                *(f"link add hot{n} type veth peer far{n} netns {host.vm}" for n in numbers),
                *(f"link set hot{n} alias vsfwd:{vnic_id(f'hot{n}')} master bridge up" for n in numbers),
            )
            wait_until(lambda: protected(host) == others + len(numbers), "all attached", 30)  # noqa: B023
            ip(host.namespace, *(f"link delete hot{n}" for n in numbers))
            wait_until(lambda: protected(host) == others, "all gone", 30)
        if before is None:
            before = held(host)
    descriptors, pins = before
    wait_until(lambda: held(host)[0] <= descriptors, "no more descriptors than before")
    assert held(host)[1] == pins


def test_o4_nothing_gets_out_while_programs_are_gone(host: LoneHost) -> None:
    """Somebody takes them off a guarded port, again and again: not one frame leaves the workload until they
    are back. How long that takes is how long what goes to it is not filtered; it is printed."""
    exposures = []
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        recognised(host, 0)
        for _ in range(5):
            neighbour.got.clear()
            wait_until(lambda: neighbour.got[mac(0), ALLOWED], "traffic", 30)
            with inside(host.namespace):
                number = socket.if_nametoindex("hot0")
                take_all_off(number)
                begun = time.monotonic()
                wait_until(
                    lambda: all(bpf.attached_programs(number, chain) for chain in CHAINS),  # noqa: B023
                    "the programs back",
                )
            exposures.append(time.monotonic() - begun)
            assert neighbour.got[mac(0), FORBIDDEN] == 0
        assert vm.sent
    print(f"programs that were taken off were back within {max(exposures):.2f} s")


def protected(host: LoneHost) -> int:
    """Ports in the set of the guard."""
    argv = ["ip", "netns", "exec", host.namespace, "nft", "-j", "list", "set", "bridge", "vsfwd", "protected"]
    listed = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["nftables"]
    return sum(len(each["set"].get("elem", ())) for each in listed if "set" in each)


def held(host: LoneHost) -> tuple[int, dict[str, int]]:
    """The daemon's descriptors (but sockets: it looks for its broker), and what is pinned."""
    assert host.daemon.process is not None
    ask(host.daemon.directory / "vsfwd.sock", lambda vsfwd: vsfwd.Status())  # after what it is at
    return Resources.of(host.daemon.process.pid).descriptors, host.pinned()


def test_o6_a_host_that_boots_is_closed_until_its_policy_is_in(host: LoneHost) -> None:
    """Everything the kernel had is gone. `vsfwd --guard` needs nobody and closes the ports; VMs run and send
    before the daemon does; with the daemon comes the policy from disk, without a broker."""
    host.daemon.kill()
    host.forget()
    host.daemon.guard()
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        wait_until(lambda: min(neighbour.sent, vm.sent) >= BEFORE, "frames in both directions")
        assert not arrived(vm, neighbour, 0, (ALLOWED, FORBIDDEN))
        recognised(host, 0)
        host.daemon.start()
        wait_until(lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30)
        assert not arrived(vm, neighbour, 0, (FORBIDDEN,))


@contextmanager
def full_chain(host: LoneHost, device: str) -> Iterator[None]:
    """As many programs of another tool as the kernel lets run on what goes out by a device: there is no place
    for the second of ours. They let the next one decide."""
    text = "#include <uapi/linux/bpf.h>\nint foreign(struct __sk_buff *skb) { return -1; }"
    compiled = compile_text(text)
    with ExitStack() as stack:
        programs = [
            stack.enter_context(compiled.loaded(bpf.ProgramType.TC))["foreign"] for _ in range(CHAIN_LENGTH)
        ]
        with inside(host.namespace):
            number = socket.if_nametoindex(device)
            for program in programs:
                bpf.attach_first(number, CHAINS[1], program)
        yield
        with inside(host.namespace):
            for id_ in bpf.attached_programs(number, CHAINS[1]):
                if program_name(id_) == "foreign":
                    detach(number, CHAINS[1], id_)


def test_o42_one_of_many_that_cannot_be_attached(host: LoneHost) -> None:
    """The kernel takes only one of its two programs: nothing passes its port, it is told by name, with an
    alarm, and all others are open; once there is room it is, too."""
    with ExitStack() as stack:
        names = [f"hot-full{number}" for number in range(3)]  # that no test before has announced
        neighbour = stack.enter_context(End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2"))
        vms = [stack.enter_context(plugged(host, number, name)) for number, name in enumerate(names)]

        def is_open(number: int) -> bool:
            return bool(neighbour.got[mac(number), ALLOWED] and vms[number].got[NEIGHBOUR_MAC, ALLOWED])

        with full_chain(host, names[1]):
            for number in (1, 0, 2):
                recognised(host, number, names[number])
            wait_until(lambda: is_open(0) and is_open(2), "traffic of the others", 30)
            sent = neighbour.sent, vms[1].sent
            wait_until(lambda: min(neighbour.sent - sent[0], vms[1].sent - sent[1]) >= BEFORE, "frames")
            assert not arrived(vms[1], neighbour, 1, (ALLOWED, FORBIDDEN))
            status = ask(host.daemon.directory / "vsfwd.sock", lambda vsfwd: vsfwd.Status())["status"]
            shown = {vnic.device: (vnic.state, vnic.why) for vnic in status.vnics}
            assert [shown[name][0] for name in names] == ["open", "unattached", "open"]
            assert shown[names[1]][1].startswith("attach the programs to device")
        wait_until(lambda: is_open(1), "traffic once there is room", 30)
        wait_until(lambda: "event_type=dfw_filter_not_applied" in host.daemon.log.read_text(), "alarm", 60)
        assert not any(arrived(vms[number], neighbour, number, (FORBIDDEN,)) for number in range(3))


@pytest.mark.parametrize("booted", [True, False], ids=["after a boot", "on a running host"])
def test_o40_a_new_port_is_closed_while_the_kernel_refuses_the_programs(
    host: LoneHost, tmp_path: Path, booted: bool
) -> None:
    """An upgrade brings programs that do not verify here: nothing passes a port that comes then, announced or
    not, until a version comes whose programs do. `vsfwd --guard` needs none, nor does the guard of before."""
    host.daemon.kill()
    if booted:
        host.forget()
        host.daemon.guard()
    with End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour, plugged(host, 0) as vm:
        recognised(host, 0)
        assert host.daemon.launch(refused_version(tmp_path / "other")).wait(timeout=90) == 1
        ended = neighbour.sent, vm.sent
        wait_until(lambda: min(neighbour.sent - ended[0], vm.sent - ended[1]) >= BEFORE, "frames both ways")
        assert not arrived(vm, neighbour, 0, (ALLOWED, FORBIDDEN))
        host.daemon.start()
        wait_until(lambda: neighbour.got[mac(0), ALLOWED] and vm.got[NEIGHBOUR_MAC, ALLOWED], "traffic", 30)
        assert not arrived(vm, neighbour, 0, (FORBIDDEN,))

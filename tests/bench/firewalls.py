"""The variants that traffic is measured with, each switched on for the length of one sample."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path

from tests.bench import nft
from tests.bench.kernel import inside, private_datapath
from tests.bench.place import Place
from tests.bench.policy import desired
from vagrant.lab.layout import GUARD_PORTS, Vm
from vsfwd.datapath import Datapath, Reason, Settings
from vsfwd.datapath.attach import Hooks
from vsfwd.image import diff
from vsfwd.policy.compile import compile


class Variant(StrEnum):
    NONE = "none"
    LINEAR = "nft-linear"
    SET = "nft-set"
    VSFWD = "vsfwd"


class Firewalls:
    """Every variant with n rules on the hosts of a place, loaded and in nobody's way; use `firewalls()`."""

    def __init__(self, place: Place, datapaths: Mapping[str, Datapath], stamps: Mapping[str, int]) -> None:
        self._place = place
        self._datapaths = datapaths
        self._stamps = stamps

    @contextmanager
    def active(self, variant: Variant) -> Iterator[None]:
        with ExitStack() as stack:
            for host, vms in self._place.hosts.items():
                if variant is Variant.LINEAR:
                    stack.enter_context(nft.active(host, "linear"))
                elif variant is Variant.SET:
                    stack.enter_context(nft.active(host, "hashed"))
                elif variant is Variant.VSFWD:
                    stack.enter_context(self._attached(host, vms))
            yield

    @contextmanager
    def _attached(self, host: str, vms: tuple[Vm, ...]) -> Iterator[None]:
        """To the datapath the vNICs stay attached afterwards, with slot, policy and flows."""
        guard = self._datapaths[host].port_guard
        try:
            _attach(host, self._datapaths[host], vms)
            guard.install(self._stamps[host], _numbers(host, vms))
            yield
        finally:
            guard.remove()
            _take_off(host, self._datapaths[host], vms)


def _numbers(host: str, vms: tuple[Vm, ...]) -> list[int]:
    with inside(host):
        return [socket.if_nametoindex(vm.device) for vm in vms]


def _attach(host: str, datapath: Datapath, vms: tuple[Vm, ...]) -> None:
    for vm, number in zip(vms, _numbers(host, vms), strict=True):
        with inside(host):
            datapath.attach(vm.vnic, number, vm.mac)


def _take_off(host: str, datapath: Datapath, vms: tuple[Vm, ...]) -> None:
    """No program on the devices, and the datapath not told."""
    with inside(host), Hooks(Path(datapath.status()["pins"]).parent) as hooks:
        for vm in vms:
            hooks.detach(socket.if_nametoindex(vm.device))


@contextmanager
def firewalls(place: Place, rules: int) -> Iterator[Firewalls]:
    """For the length of this context; nothing of it stays."""
    state = desired(rules)
    with ExitStack() as stack:
        datapaths = {}
        stamps = {}
        for host, vms in place.hosts.items():
            nft.load(host, nft.linear(rules))
            nft.load(host, nft.hashed(rules))
            stack.callback(nft.flush, host)
            with inside(host):
                datapath = stack.enter_context(private_datapath(Settings(guard_ports=GUARD_PORTS)))
            datapaths[host], stamps[host] = datapath, datapath.port_guard.stamp_in_force()
            datapath.port_guard.remove()
            _attach(host, datapath, vms)
            _take_off(host, datapath, vms)
            datapath.install(diff(None, compile(state, datapath.slots)))
        yield Firewalls(place, datapaths, stamps)
        for host, datapath in datapaths.items():
            for reasons in datapath.drops().values():
                if full := reasons.get(Reason.TABLE_FULL):
                    raise RuntimeError(
                        f"{host} refused {full} flows for want of room: rates are not comparable"
                    )

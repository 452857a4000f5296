"""Takes vsfwd off this network namespace: no program of ours on a device, no port guard, nothing pinned.

It opens every vNIC at once, so nothing but `vsfwd --detach` does it: a daemon that ends leaves all of this as
it is. None runs meanwhile; the next one attaches again what it knows or recognises."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute

from vsfwd.datapath import early
from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.pins import SCHEMA
from vsfwd.datapath.portguard import PortGuard


def leave(pin_dir: Path) -> Iterator[str]:
    """Devices that are not filtered any more, each as soon as it is not. The pins go last: what is attached
    needs them. Raises DatapathError after all that could be done."""
    PortGuard(()).remove()  # while the programs still stamp what it asks for
    refused = []
    with Hooks(pin_dir) as hooks, IPRoute() as netlink:
        for link in netlink.get_links():
            name, number = link.get_attr("IFLA_IFNAME"), link["index"]
            try:
                had_early_drop = early.take_off(netlink, pin_dir / early.PINS, link)
                if hooks.programs(number) or had_early_drop:
                    hooks.detach(number)
                    yield name
            except DatapathError as error:
                refused.append(str(error))
    if refused:
        raise DatapathError("; ".join(refused))
    if pin_dir.is_dir():
        for path in pin_dir.iterdir():
            if path.name == early.PINS or SCHEMA.fullmatch(path.name):  # others may be somebody else's
                shutil.rmtree(path)

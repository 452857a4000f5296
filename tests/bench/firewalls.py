"""The variants that traffic is measured with, each switched on for the length of one sample in the same topology."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.bench import nft
from tests.bench.pins import PINS
from tests.bench.place import Place, inside
from tests.bench.policy import desired
from vagrant.lab.layout import Vm
from vsfwd.datapath import Datapath, Settings
from vsfwd.image import diff
from vsfwd.policy.compile import compile

FLOWS_PER_VNIC: Final = 131072
"""Room for all connections of 20 s, which is how long a closed one keeps its entry: the table never fills up."""


class Variant(StrEnum):
    NONE = "none"
    LINEAR = "nft-linear"
    SET = "nft-set"
    VSFWD = "vsfwd"


class Firewalls:
    """Every variant with n rules on the hosts of a place, loaded and in nobody's way; use `firewalls()`."""

    def __init__(self, place: Place, datapaths: Mapping[str, Datapath]) -> None:
        self._place = place
        self._datapaths = datapaths

    @contextmanager
    def active(self, variant: Variant) -> Iterator[None]:
        with ExitStack() as stack:
            for host, vms in self._place.hosts.items():
                if variant is Variant.LINEAR:
                    stack.enter_context(nft.active(host, "linear"))
                elif variant is Variant.SET:
                    stack.enter_context(nft.active(host, "hashed"))
                elif variant is Variant.VSFWD:
                    stack.enter_context(_attached(host, self._datapaths[host], vms))
            yield

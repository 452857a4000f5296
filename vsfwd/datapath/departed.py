"""Flow tables of vNICs that are gone, for a moment: the VM may have moved, and nobody have said so.

A table is kept by its descriptor alone, nothing is read or copied. No program sees it any more."""

import os
import time
from collections import OrderedDict
from typing import Final, NamedTuple

KEPT_S: Final = 10.0
"""Twice what a manager takes to find out where the VM is now."""
MOST: Final = 16
"""Tables, of 4.5 MB each where nobody has configured it otherwise; the oldest go."""


class Table(NamedTuple):
    """`policy_seq`: in force when it was let go."""

    fd: int
    policy_seq: int
    until: float


class Departed:
    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()

    def keep(self, vnic_id: str, fd: int, policy_seq: int) -> None:
        """The descriptor is closed here."""
        self.drop(vnic_id)
        self._tables[vnic_id] = Table(fd, policy_seq, time.monotonic() + KEPT_S)
        self.expire()

    def get(self, vnic_id: str) -> Table | None:
        return self._tables.get(vnic_id)

    def drop(self, vnic_id: str) -> None:
        if table := self._tables.pop(vnic_id, None):
            os.close(table.fd)

    def expire(self) -> None:
        now = time.monotonic()
        for vnic_id, table in list(self._tables.items()):
            if table.until < now or len(self._tables) > MOST:
                self.drop(vnic_id)

    def close(self) -> None:
        for vnic_id in list(self._tables):
            self.drop(vnic_id)

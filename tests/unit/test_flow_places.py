"""Where flows lie in the table of a vNIC: in two buckets each, by a hash that nobody can aim."""

import numpy as np
import pytest

from vsfwd.datapath.flowstate import flow_hashes, spread
from vsfwd.datapath.schema import constant
from vsfwd.migration.state import KEY

ROOM = 512


@pytest.mark.parametrize("step", [1 << 36, 1 << 47, 0x5555 << 32, (1 << 63) + (1 << 47)], ids=hex)
def test_ports_that_a_client_takes_in_turn_fill_all_buckets_alike(step: int) -> None:
    """Under seeds that space them evenly: without the last steps of the hash, flows have no place in a table
    that is a little more than half full."""
    seeds = np.arange(1, KEY.itemsize // 4 + 2, dtype="<u8") * np.uint64(0x9E3779B97F4A7C15)
    seeds[-2] = step
    keys = np.zeros(300, KEY)
    keys["remote_port"] = np.arange(1000, 1300)
    bucket, _ = spread(flow_hashes(keys, seeds), ROOM // constant("WAYS"), np.ones(len(keys)))
    assert (bucket >= 0).all()

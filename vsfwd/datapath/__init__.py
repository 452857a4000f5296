"""Between images and the kernel: the only package that knows bcc, maps and devices.

image ──diff──► plan ──► maps (banks, flip) ──► kernel     programs: build, compiled, loader, attach
                                                kernel ──► flows (conntrack), counters, drops, events
                                                early: drops on XDP, on demand and apart from policy
"""

from vsfwd.datapath.conntrack import Flow
from vsfwd.datapath.datapath import Datapath
from vsfwd.datapath.early import EarlyDrop
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.events import Ether, Event
from vsfwd.datapath.maps import RuleCounters
from vsfwd.datapath.schema import Hold, Reason, State
from vsfwd.datapath.settings import Limit, Settings
from vsfwd.datapath.slots import TableUse
from vsfwd.datapath.snoops import Snoop
from vsfwd.datapath.timers import TIMEOUTS_S

__all__ = [
    "TIMEOUTS_S",
    "Datapath",
    "DatapathError",
    "EarlyDrop",
    "Ether",
    "Event",
    "Flow",
    "Hold",
    "Limit",
    "Reason",
    "RuleCounters",
    "Settings",
    "Snoop",
    "State",
    "TableUse",
]

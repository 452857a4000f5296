"""`vsfwctl hosts`, `tokens`, `alarms` and `components`: the manager's hosts, who may become one, what is
wrong with them, and what runs on them beside vsfwd."""

from typing import Final

from vsfwd.fleetctl.alarms import alarms
from vsfwd.fleetctl.components import components
from vsfwd.fleetctl.hosts import hosts
from vsfwd.fleetctl.tokens import tokens

COMMANDS: Final = (alarms, components, hosts, tokens)

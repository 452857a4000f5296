"""`vsfwctl hosts`, `tokens`, `alarms`, `components` and `migrations`: the manager's hosts, who may become
one, what is wrong with them, what runs on them beside vsfwd, and VMs that move between them."""

from typing import Final

from vsfwd.fleetctl.alarms import alarms
from vsfwd.fleetctl.components import components
from vsfwd.fleetctl.hosts import hosts
from vsfwd.fleetctl.migrations import migrations
from vsfwd.fleetctl.tokens import tokens

COMMANDS: Final = (alarms, components, hosts, migrations, tokens)

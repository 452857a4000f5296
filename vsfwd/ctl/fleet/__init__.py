"""`vsfwctl hosts`, `tokens`, `alarms`, `components` and `migrations`: the manager's hosts, who may become
one, what is wrong with them, what runs on them beside vsfwd, and VMs that move between them."""

from typing import Final

from vsfwd.ctl.fleet.alarms import alarms
from vsfwd.ctl.fleet.components import components
from vsfwd.ctl.fleet.hosts import hosts
from vsfwd.ctl.fleet.migrations import migrations
from vsfwd.ctl.fleet.tokens import tokens

COMMANDS: Final = (alarms, components, hosts, migrations, tokens)

"""`vsfwd --config FILE`: read the configuration, set up the log, run the daemon. Everything that can be set
stands in the file or in the environment; options say which file, and what to do with it."""

import asyncio
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Final

import click
import structlog

from vsfwd.config import Config, check_option, config_option, configured
from vsfwd.daemon import run
from vsfwd.datapath import DatapathError, early, loader
from vsfwd.datapath.leave import leave
from vsfwd.datapath.portguard import PortGuard
from vsfwd.log import log_to_stderr
from vsfwd.statefile import StateFile, Unusable

log = structlog.get_logger(log="vsfwd")

SWITCH_S: Final = 0.0005
"""After which the event loop hands the interpreter to the apply thread when that wants it. With Python's own
5 ms a VM that moves waits for each step of its last round while netlink events are read."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.option("--guard", is_flag=True, help="Only close the ports of guard_ports, and end. For boot.")
@click.option("--compile", "ahead", is_flag=True, help="Only compile the programs, and end. For upgrades.")
@click.option(
    "--detach", is_flag=True, help="Only take vsfwd off this host: nothing is filtered from then on."
)
@check_option
@click.version_option(package_name="vsfwd", prog_name="vsfwd")
def main(path: Path, guard: bool, ahead: bool, detach: bool, check_config: bool) -> None:
    """The daemon of the distributed firewall, one on every host."""
    config = configured("vsfwd", path, check_config)
    if guard:
        close_ports(config)
        return
    log_to_stderr()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there are keys in it
    sys.setswitchinterval(SWITCH_S)
    try:
        if ahead:
            loader.compile_ahead(config.cache_dir)
            early.compile_ahead(config.cache_dir)
        elif detach:
            detach_all(config)
        else:
            asyncio.run(run(config, partial(Config.load, path)))
    except (Unusable, DatapathError) as error:
        click.echo(f"vsfwd: {error}", err=True)
        sys.exit(1)


def close_ports(config: Config) -> None:
    """Needs neither compiler nor broker, so that it can be done before anything else is up."""
    port_guard = PortGuard(config.guard_ports)
    port_guard.close_until_told()
    if port_guard.fault:
        click.echo(f"vsfwd: port guard: {port_guard.fault}", err=True)
        sys.exit(1)


def detach_all(config: Config) -> None:
    """Not from under a daemon, which would attach it all again. Raises Unusable and DatapathError."""
    statefile = StateFile(config.state_dir)
    for device in leave(config.pin_dir):
        log.warning("not filtered any more", device=device)
    log.warning("nothing of vsfwd is attached here any more; its next start attaches it again")
    statefile.close()


if __name__ == "__main__":
    main()

"""`vsfwd --config FILE`: read the configuration, set up the log, run the daemon."""

import asyncio
import resource
import sys
from pathlib import Path

import click

from vsfwd.config import Config, ConfigError
from vsfwd.daemon import run
from vsfwd.datapath import DatapathError
from vsfwd.datapath.portguard import PortGuard
from vsfwd.log import log_to_stderr
from vsfwd.statefile import Unusable


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/vsfwd/vsfwd.toml"),
    show_default=True,
    help="Configuration file (TOML).",
)
@click.option("--guard", is_flag=True, help="Only close the ports of guard_ports, and end. For boot.")
@click.version_option(package_name="vsfwd", prog_name="vsfwd")
def main(path: Path, guard: bool) -> None:
    """The daemon of the distributed firewall, one on every host."""
    try:
        config = Config.load(path)
    except ConfigError as error:
        click.echo(f"vsfwd: {error}", err=True)
        sys.exit(2)
    if guard:
        close_ports(config)
        return
    log_to_stderr()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there are keys in it
    try:
        asyncio.run(run(config))
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


if __name__ == "__main__":
    main()

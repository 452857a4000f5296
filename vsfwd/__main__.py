"""`vsfwd --config FILE`: read the configuration, set up the log, run the daemon."""

import asyncio
import logging
import sys
from pathlib import Path

import click
import structlog

from vsfwd.config import Config, ConfigError
from vsfwd.daemon import run
from vsfwd.datapath import DatapathError
from vsfwd.statefile import InUse


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/vsfwd/vsfwd.toml"),
    show_default=True,
    help="Configuration file (TOML).",
)
@click.version_option(package_name="vsfwd", prog_name="vsfwd")
def main(path: Path) -> None:
    """The daemon of the distributed firewall, one on every host."""
    try:
        config = Config.load(path)
    except ConfigError as error:
        click.echo(f"vsfwd: {error}", err=True)
        sys.exit(2)
    _log_to_stderr()
    try:
        asyncio.run(run(config))
    except (InUse, DatapathError) as error:
        click.echo(f"vsfwd: {error}", err=True)
        sys.exit(1)


def _log_to_stderr() -> None:
    """One line an entry, key=value, for the journal. What libraries have to say is a warning at least."""
    logging.basicConfig(level=logging.WARNING, format="level=%(levelname)s log=%(name)s event=%(message)r")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "log", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    main()

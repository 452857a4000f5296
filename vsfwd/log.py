"""The log of a process: one line an entry, key=value, on standard error, for the journal."""

import logging
import sys

import structlog


class _OneLine(logging.Formatter):
    """Of a traceback, too, which a journal would take for as many entries."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


def log_to_stderr() -> None:
    """What libraries have to say is a warning at least."""
    libraries = logging.StreamHandler()
    libraries.setFormatter(_OneLine("level=%(levelname)s log=%(name)s event=%(message)r"))
    logging.basicConfig(level=logging.WARNING, handlers=[libraries])
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

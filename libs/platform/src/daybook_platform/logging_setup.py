"""Log configuration: one format for our events and for those of libraries."""

import logging
import sys
from typing import Any, Literal

import structlog

LogFormat = Literal["console", "json"]


def configure(*, log_format: LogFormat, level: str) -> None:
    """Write every record of the process to standard error, one line each, in `log_format`.

    Records of the standard library (TaskIQ, aio-pika, SQLAlchemy) pass through the same
    processors as ours and have the same fields.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # A logger that was used before this call must pick up the new configuration.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, minimum in _MIN_LEVELS.items():
        logging.getLogger(name).setLevel(max(logging.getLevelNamesMapping()[level], minimum))


_MIN_LEVELS = {
    # They log each message at INFO and each frame at DEBUG. Errors in aiormq also reach us as
    # exceptions, and are logged where they are handled.
    "aio_pika": logging.WARNING,
    "aiormq": logging.CRITICAL,
    "taskiq": logging.WARNING,
    "asyncio": logging.INFO,
}


def _renderers(log_format: LogFormat) -> list[Any]:
    # No local variables, which structlog shows by default: they may contain passwords or orders.
    if log_format == "console":
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return [
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
        ),
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]

"""Entry point of the `daybook` script."""

import sys

INTERRUPTED = 130
UNAVAILABLE = 69
"""Exit code when Postgres is unavailable: EX_UNAVAILABLE of sysexits.h."""


def main() -> None:
    """Run the command line; interrupts and outages of Postgres end it without a traceback."""
    try:
        # The import takes most of a second, during which users press Ctrl-C.
        from daybook_console.main import app

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from daybook_console.database import describe_unavailability

        reason = describe_unavailability(error)
        if reason is None:
            raise
        sys.stderr.write(f"{reason}\n")
        sys.exit(UNAVAILABLE)

"""Entry point of the `daybook` script."""

import sys


def main() -> None:
    """Run the command line; an interrupt ends it without a traceback, even during the import."""
    try:
        # The import takes most of a second, during which users press Ctrl-C.
        from daybook_console.main import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)

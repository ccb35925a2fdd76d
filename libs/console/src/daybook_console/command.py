"""What does the `daybook` script start?"""

import sys


def main() -> None:
    """Run the command line; an interrupt ends it without a traceback, also while it loads."""
    try:
        # To load it takes most of a second, in which people change their minds.
        from daybook_console.main import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)

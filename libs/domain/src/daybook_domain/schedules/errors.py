"""What can be refused about schedules?"""

from daybook_domain.errors import Invalid


class InvalidCron(Invalid):
    """The cron expression cannot be read, or never comes true."""

    code = "invalid_cron"

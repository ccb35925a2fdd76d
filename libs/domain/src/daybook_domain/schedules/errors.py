"""What can be refused about schedules?"""

from daybook_domain.errors import Conflict, Invalid, NotFound, Outdated


class InvalidCron(Invalid):
    """The cron expression cannot be read, or never comes true."""

    code = "invalid_cron"


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    code = "schedule_not_found"


class ScheduleNameTaken(Conflict):
    """Another schedule has that name."""

    code = "schedule_name_taken"


class ScheduleFromSettings(Conflict):
    """The schedule follows the settings, and would be written over at the next start."""

    code = "schedule_from_settings"


class ScheduleNotPaused(Conflict):
    """The schedule is not paused, so it cannot be resumed."""

    code = "schedule_not_paused"


class ScheduleChanged(Outdated):
    """Somebody has changed the schedule since the caller read it."""

    code = "schedule_changed"


class ScheduleFromTaskiq(Conflict):
    """The schedule follows an entry of TaskIQ's source, and would be written over with it."""

    code = "schedule_from_taskiq"

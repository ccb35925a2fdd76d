"""Errors about schedules."""

from daybook_domain.errors import Conflict, Invalid, NotFound, Outdated


class InvalidCron(Invalid):
    """The cron expression is malformed or never fires."""

    code = "invalid_cron"


class ScheduleNotFound(NotFound):
    """The schedule does not exist."""

    code = "schedule_not_found"


class ScheduleNameTaken(Conflict):
    """Another schedule has that name."""

    code = "schedule_name_taken"


class ScheduleFromSettings(Conflict):
    """The schedule is defined by the settings, and the next start would overwrite a change."""

    code = "schedule_from_settings"


class ScheduleChanged(Outdated):
    """The schedule has changed since the caller read it."""

    code = "schedule_changed"


class ScheduleFromTaskiq(Conflict):
    """The schedule is defined by an entry of TaskIQ's source, which would overwrite a change."""

    code = "schedule_from_taskiq"


class ScheduleCannotFire(Conflict):
    """The schedule has no date to report: its time zone is unknown, or the date out of range."""

    code = "schedule_cannot_fire"

"""Names of the channels that LISTEN and NOTIFY use."""

RUNS_CHANNEL = "daybook_runs"
"""Wakes schedulers: a run is pending, or a backfill can continue. Carries no payload."""

EVENTS_CHANNEL = "daybook_events"
"""Changed runs, days and backfills, as JSON; written by triggers (migrations 0005 and 0006)."""

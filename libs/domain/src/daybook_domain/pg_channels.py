"""Channel names of LISTEN and NOTIFY."""

RUNS_CHANNEL = "daybook_runs"
"""Wakes the schedulers: a run is pending, or a backfill can continue. No payload."""

EVENTS_CHANNEL = "daybook_events"
"""Changes of runs, days and backfills, as JSON; sent by triggers (migrations 0005 and 0006)."""

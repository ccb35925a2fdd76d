"""The hub of change events survives notifications that it does not understand."""

import pytest

from daybook_api.event_hub import EventHub, EventKind


@pytest.mark.parametrize("payload", ["", "{", "[]", "{}", "null", '{"kind": "later"}', '"text"'])
async def test_a_notification_that_is_not_understood_becomes_a_reset(payload: str) -> None:
    hub = EventHub(max_subscriptions=1)
    with hub.subscribe() as subscription:
        hub.publish(payload)
        hub.publish('{"kind": "day", "report_date": "2026-03-01"}')

        events = await subscription.next_events()

    assert [event.kind for event in events] == [EventKind.RESET, EventKind.DAY]

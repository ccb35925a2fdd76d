"""The catalogue of problem codes: what each means, and what to do.

`GET /problems` shows it, and docs/problems.md contains it; a test compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemKind:
    """A kind of problem; without a status it appears outside HTTP only."""

    code: str
    status: int | None
    meaning: str
    action: str


CATALOGUE: dict[str, Sequence[ProblemKind]] = {
    "HTTP": (
        ProblemKind(
            "invalid_request",
            422,
            "The body, a parameter or a header is malformed, missing, unknown, or breaks a rule.",
            "Correct the parts listed in `errors`.",
        ),
        ProblemKind(
            "no_such_path", 404, "No resource has this path.", "Compare the path with `/docs`."
        ),
        ProblemKind(
            "method_not_allowed",
            405,
            "The resource does not support this method.",
            "Use a method of the `Allow` header.",
        ),
        ProblemKind(
            "not_acceptable",
            406,
            "No supported format matches `format` or `Accept`.",
            "Request one of the formats in `detail`.",
        ),
        ProblemKind("too_large", 413, "The request body is too large.", "Send a smaller body."),
        ProblemKind(
            "precondition_required",
            428,
            "A change of a schedule has no `If-Match` header.",
            "Read the schedule and send its `ETag` as `If-Match`.",
        ),
        ProblemKind(
            "idempotency_key_reused",
            422,
            "The `Idempotency-Key` was used for a request with another body.",
            "Use a new key for each new request.",
        ),
        ProblemKind(
            "internal_error",
            500,
            "An unexpected error, which is a bug in Daybook.",
            "Report it with the `request_id`.",
        ),
        ProblemKind(
            "not_ready",
            503,
            "`/readyz` only: a dependency is down, or the database has no tables.",
            "Check `dependencies`; run `daybook migrate`.",
        ),
    ),
    "General": (
        ProblemKind("not_found", 404, "The resource does not exist.", "Check the id."),
        ProblemKind(
            "conflict",
            409,
            "The state of the resource does not allow the request.",
            "Read the resource, then decide.",
        ),
        ProblemKind(
            "outdated",
            412,
            "The resource has changed since the client read it, or `If-Match` has no tag of it.",
            "Read it again and send the new `ETag`.",
        ),
        ProblemKind(
            "unavailable",
            503,
            "A dependency is down, or a limit of concurrent requests is reached.",
            "Retry after the time in `Retry-After`.",
        ),
    ),
    "Reports, runs and backfills": (
        ProblemKind(
            "day_not_found",
            404,
            "No day has a sealed report, so `date=latest` names none.",
            "Request one with `POST /report/runs`.",
        ),
        ProblemKind(
            "run_not_found", 404, "The run does not exist.", "List runs with `GET /report/runs`."
        ),
        ProblemKind(
            "future_day",
            422,
            "The business day has not started.",
            "Request a date up to the current business day.",
        ),
        ProblemKind(
            "run_ended",
            409,
            "The run has ended otherwise and cannot be cancelled.",
            "Nothing; request a new run if needed.",
        ),
        ProblemKind(
            "run_not_ended",
            409,
            "The run cannot be retried: it is active, has succeeded, or joined another run.",
            "Wait for its end, or request a new run.",
        ),
        ProblemKind(
            "timezone_mismatch",
            409,
            "The service uses another time zone than that of business days; a run was refused by "
            "such a worker and waits for another one.",
            "Correct `DAYBOOK_TIMEZONE` of the service, or run `daybook timezone change`.",
        ),
        ProblemKind(
            "backfill_not_found",
            404,
            "The backfill does not exist.",
            "List backfills with `GET /report/backfills`.",
        ),
        ProblemKind(
            "backfill_ended",
            409,
            "The backfill has ended and cannot be paused, resumed or cancelled.",
            "Request a new backfill if needed.",
        ),
        ProblemKind(
            "invalid_range",
            422,
            "`from` is after `to`, or the range is too long or extends into the future.",
            "Correct the range.",
        ),
    ),
    "Schedules": (
        ProblemKind(
            "schedule_not_found",
            404,
            "The schedule does not exist.",
            "List schedules with `GET /schedules`.",
        ),
        ProblemKind(
            "schedule_name_taken", 409, "Another schedule has this name.", "Choose another name."
        ),
        ProblemKind(
            "schedule_changed",
            412,
            "The schedule has changed since the client read it, or `If-Match` has no valid tag.",
            "Read it again and send the new `ETag`.",
        ),
        ProblemKind(
            "schedule_cannot_fire",
            409,
            "The schedule has no date to report: its time zone is unknown to this system, "
            "or the date is out of range.",
            "Correct its definition, pause or remove it.",
        ),
        ProblemKind(
            "schedule_from_settings",
            409,
            "The schedule is defined by settings, which would overwrite the change.",
            "Change the setting in `detail`.",
        ),
        ProblemKind(
            "schedule_from_taskiq",
            409,
            "The schedule is defined by an entry of TaskIQ's schedule source, which would "
            "overwrite the change.",
            "Change the entry.",
        ),
        ProblemKind(
            "invalid_cron",
            422,
            "The cron expression cannot be parsed, or is never due.",
            "Correct the expression; see [schedules.md](schedules.md).",
        ),
    ),
    "Users, addresses, products and orders": (
        ProblemKind("user_not_found", 404, "The user does not exist.", "Check the id."),
        ProblemKind(
            "address_not_found",
            404,
            "The user has no such address.",
            "Check the ids of the user and the address.",
        ),
        ProblemKind("product_not_found", 404, "The product does not exist.", "Check the id."),
        ProblemKind("order_not_found", 404, "The order does not exist.", "Check the id."),
        ProblemKind(
            "taken",
            409,
            "Another user has this name or email.",
            "Choose another value for the field in `errors`.",
        ),
        ProblemKind(
            "in_use",
            409,
            "Orders refer to the user, address or product, so it cannot be deleted.",
            "Keep it, or delete the orders first.",
        ),
        ProblemKind(
            "out_of_stock",
            409,
            "The stock of a product is smaller than the ordered quantity.",
            "Order less, or retry when the product is in stock.",
        ),
        ProblemKind(
            "external_id_taken",
            409,
            "Another order with other content has this `external_id`.",
            "Use a new `external_id` for each new order.",
        ),
        ProblemKind(
            "unknown_reference",
            422,
            "The order refers to a user, address or product that does not exist.",
            "Create it first, or correct the id.",
        ),
        ProblemKind(
            "foreign_address",
            422,
            "The delivery address belongs to another user.",
            "Use an address of the user.",
        ),
        ProblemKind(
            "total_too_large",
            422,
            "The total price exceeds the maximum of an order.",
            "Split the order.",
        ),
        ProblemKind(
            "report_building",
            None,
            "A report that may contain the order is being built.",
            "Nothing: the message is retried until the build has ended.",
        ),
        ProblemKind(
            "status_forbids",
            409,
            "The status of the order does not allow the change.",
            "Read the order, then decide.",
        ),
        ProblemKind(
            "stock_full",
            409,
            "Returning the items would exceed the maximum stock of a product.",
            "Reduce the stock of the product, then retry.",
        ),
        ProblemKind(
            "order_reported",
            409,
            "A report contains the order, so it cannot be deleted.",
            "Cancel the order.",
        ),
    ),
    "Dead letters": (
        ProblemKind(
            "dead_letter_not_found",
            404,
            "The dead letter does not exist.",
            "List dead letters with `GET /dead-letters`.",
        ),
        ProblemKind(
            "dead_letter_closed",
            409,
            "The dead letter was processed or discarded already.",
            "Nothing.",
        ),
        ProblemKind(
            "dead_letter_changed",
            409,
            "The dead letter was edited since the client read it.",
            "Read it again and send the new `version`.",
        ),
    ),
    "Outside HTTP": (
        ProblemKind(
            "invalid",
            None,
            "A value breaks a rule; in responses the code is `invalid_request`.",
            "Correct the value.",
        ),
        ProblemKind(
            "malformed",
            None,
            "The body of a message cannot be parsed.",
            "Edit the dead letter and redrive it, or discard it.",
        ),
        ProblemKind(
            "invalid_message",
            None,
            "A message breaks the contract of its queue; see `/asyncapi`.",
            "Edit the dead letter and redrive it; correct the producer.",
        ),
        ProblemKind(
            "no_items",
            None,
            "An order message has no items.",
            "Edit the dead letter and redrive it; correct the producer.",
        ),
        ProblemKind(
            "message_id_reused",
            None,
            "Another message with other content has the same message id.",
            "Correct the producer; redrive or discard the dead letter.",
        ),
        ProblemKind(
            "postponed",
            None,
            "An update waits for an earlier update of the same entity.",
            "Nothing, unless it became a dead letter: process the earlier one first.",
        ),
        ProblemKind(
            "unforeseen",
            None,
            "Processing a message failed with an unexpected error, which is a bug in Daybook.",
            "Report it; redrive the dead letter after the fix.",
        ),
        ProblemKind(
            "delivery_limit",
            None,
            "Workers ended repeatedly while they processed the message.",
            "Inspect the message before it is redriven.",
        ),
        ProblemKind(
            "not_ours",
            None,
            "RabbitMQ may have redelivered the messages to another worker; nothing was committed.",
            "Nothing; they are processed again.",
        ),
        ProblemKind(
            "wrong_queue",
            None,
            "A queue exists with other arguments than Daybook expects.",
            "Delete or migrate the queue; see [intake.md](intake.md).",
        ),
        ProblemKind(
            "lease_lost",
            None,
            "A run was cancelled or given to another worker during its build; nothing was "
            "committed.",
            "Nothing; the other worker builds it.",
        ),
        ProblemKind(
            "run_held",
            None,
            "Every claimable run is locked by another transaction.",
            "Nothing; the worker retries.",
        ),
        ProblemKind(
            "invalid_taskiq_entry",
            None,
            "An entry of TaskIQ's schedule source cannot be fired.",
            "Correct the entry; see `GET /schedules/taskiq`.",
        ),
    ),
}
"""The kinds of problems by section of docs/problems.md."""

KINDS = {kind.code: kind for section in CATALOGUE.values() for kind in section}


def to_markdown(section: str) -> str:
    """Return the table of a section of docs/problems.md."""
    rows = (
        f"| `{kind.code}` | {kind.status or 'none'} | {kind.meaning} | {kind.action} |"
        for kind in CATALOGUE[section]
    )
    return "\n".join(["| code | status | meaning | what to do |", "|---|---|---|---|", *rows])

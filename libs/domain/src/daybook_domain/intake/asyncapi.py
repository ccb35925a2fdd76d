"""Which document tells producers what to send? AsyncAPI 3.0, made of the very models. Pure."""

from typing import Any

from pydantic.json_schema import models_json_schema

from daybook_domain.intake.messages import MAX_BODY_BYTES, MODELS

VERSION = "1.0.0"
"""Of the contract, not of the software."""

_SCHEMAS = "#/components/schemas/"


def document() -> dict[str, Any]:
    """Return the document."""
    models, definitions = models_json_schema(
        [(model, "validation") for model in MODELS.values()], ref_template=_SCHEMAS + "{model}"
    )
    payloads = {queue: models[model, "validation"] for queue, model in MODELS.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Daybook intake",
            "version": VERSION,
            "description": (
                "What producers send to Daybook, on RabbitMQ's default exchange: the routing key"
                " is the queue's name, the delivery mode 2, the body JSON in UTF-8 of at most"
                f" {MAX_BODY_BYTES:,} bytes. A message id is not needed; with one, or with an"
                " external id of an order, a message may be sent again without harm. What cannot"
                " be processed is kept as a dead letter."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            queue.value: {
                "address": queue.value,
                "messages": {queue.value: {"$ref": f"#/components/messages/{queue.value}"}},
                "bindings": {
                    "amqp": {
                        "is": "queue",
                        "queue": {
                            "name": queue.value,
                            "durable": True,
                            "exclusive": False,
                            "autoDelete": False,
                        },
                    }
                },
            }
            for queue in MODELS
        },
        "operations": {
            f"take_{queue.value}": {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{queue.value}"},
                "summary": (model.__doc__ or "").strip(),
            }
            for queue, model in MODELS.items()
        },
        "components": {
            "messages": {
                queue.value: {
                    "name": queue.value,
                    "contentType": "application/json",
                    "payload": payloads[queue],
                }
                for queue in MODELS
            },
            "schemas": definitions.get("$defs", {}),
        },
    }

"""AsyncAPI 3.0 document of the intake queues, generated from the message models. Pure."""

from typing import Any

from pydantic.json_schema import models_json_schema

from daybook_domain.intake.messages import MAX_BODY_BYTES, MODELS

VERSION = "1.1.0"
"""Version of the contract, not of the software."""

_SCHEMAS = "#/components/schemas/"


def document() -> dict[str, Any]:
    """Return the AsyncAPI document."""
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
                "Messages that producers publish to RabbitMQ's default exchange, with the name of"
                " the queue as the routing key, delivery mode 2, and a JSON body in UTF-8 of at"
                f" most {MAX_BODY_BYTES:,} bytes. The message id is optional; messages with a"
                " message id, and orders with an external id, can safely be published again."
                " An optional field that is null has the same meaning as an absent one. Fields"
                " that this version does not define are ignored."
                " Messages that cannot be processed are stored as dead letters."
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

"""`daybook demo publish` and `daybook asyncapi`: the producer's side of the intake."""

import json

import pytest

from tests.integration.console.conftest import RunCommand
from tests.support.amqp import AmqpClient


async def test_the_asyncapi_document_is_printed(run_command: RunCommand) -> None:
    assert json.loads((await run_command("asyncapi")).stdout)["asyncapi"] == "3.0.0"


@pytest.mark.rabbitmq
async def test_demo_orders_are_published_and_a_missing_queue_is_an_error(
    run_command: RunCommand, rabbitmq_url: str, clean: None
) -> None:
    publish = ("demo", "publish", "--orders", "30", "--products", "5", "--duplicates", "100")
    async with AmqpClient.connected(rabbitmq_url) as producer:
        await producer.purge_intake_queues()
        sent = await run_command(*publish, DAYBOOK_BROKER_URL=rabbitmq_url)
        assert sent.stdout == "65 messages sent and confirmed.\n", sent.stderr
        assert (await producer.depth("order"), await producer.depth("product")) == (60, 5)

        await producer.channel.queue_delete("order")
        unroutable = await run_command(*publish, DAYBOOK_BROKER_URL=rabbitmq_url)

    assert unroutable.exit_code == 1
    assert "no queue 'order'" in unroutable.stderr


async def test_an_unreachable_rabbitmq_is_an_error(run_command: RunCommand, clean: None) -> None:
    unreachable = await run_command(
        "demo", "publish", DAYBOOK_BROKER_URL="amqp://guest@127.0.0.1:1/"
    )
    wrong = await run_command("demo", "publish", DAYBOOK_BROKER_URL="redis://localhost/0")

    assert (unreachable.exit_code, "cannot be reached" in unreachable.stderr) == (1, True)
    assert (wrong.exit_code, "DAYBOOK_BROKER_URL" in wrong.stderr) == (2, True)

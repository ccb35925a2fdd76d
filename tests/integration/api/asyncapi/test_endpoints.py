"""Integration tests of GET /asyncapi."""

import httpx


async def test_the_asyncapi_document_lists_all_queues(api: httpx.AsyncClient) -> None:
    response = await api.get("/asyncapi")

    assert response.status_code == 200
    assert set(response.json()["channels"]) == {
        "product",
        "product_update",
        "order",
        "order_update",
    }

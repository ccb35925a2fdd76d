"""Queries that render a single user or product as JSON in Postgres.

The fields and their order are those of `GET /users/{id}` and `GET /products/{id}`. Rendering in SQL
takes about half the time of loading a row and serialising it with Pydantic (docs/adr/0020).
"""

_CREATED_AND_UPDATED = ", ".join(
    f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS {column}"""
    for column in ("created_at", "updated_at")
)

USER_QUERY = (
    "SELECT row_to_json(entity)::text FROM (SELECT id, username, email, description,"
    f" {_CREATED_AND_UPDATED} FROM users WHERE id = $1) AS entity"
)
"""One row with the JSON text of the user `$1`, or none."""

PRODUCT_QUERY = (
    "SELECT row_to_json(entity)::text FROM (SELECT id, name, description,"
    f" trim_scale(price) AS price, stock_quantity, {_CREATED_AND_UPDATED}"
    " FROM products WHERE id = $1) AS entity"
)
"""One row with the JSON text of the product `$1`, or none."""

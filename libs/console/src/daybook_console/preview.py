"""First lines of a report and the URLs of the API, printed by `daybook run`."""

from datetime import date

import httpx
from rich.console import Console
from rich.table import Table

ROWS = 5
COLUMNS = ("report_at", "order_id", "count_product")


def show(console: Console, url: str, day: date | None) -> None:
    """Print the first rows of the report of `day`, if given, and the URLs of the API at `url`."""
    if day is not None:
        rows = (
            httpx.get(f"{url}/report", params={"date": day.isoformat()}).raise_for_status().json()
        )
        table = Table(title=f"Report of {day}: {len(rows)} orders", title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in rows[:ROWS]:
            table.add_row(*(str(row[column]) for column in COLUMNS))
        console.print(table)
        console.print(f"Report:    {url}/report?date={day}", soft_wrap=True)
    console.print(f"Days:      {url}/report/days", soft_wrap=True)
    console.print(f"API docs:  {url}/docs", soft_wrap=True)

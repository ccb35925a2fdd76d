"""Which text does a request take?"""

from typing import Annotated

from pydantic import AfterValidator


def _storable(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds the character U+0000, which cannot be stored")
    return value


Text = Annotated[str, AfterValidator(_storable)]
"""Any text that Postgres can hold: JSON knows one character more."""

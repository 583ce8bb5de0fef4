"""Values out of a JSON document that somebody else may have written, each checked for its type and bounds.

A header is read with this and not with a library: it has twenty keys, and every help text and every reader would pay
for the import.
"""

from __future__ import annotations

import json
from typing import Any


class Fields:
    """The items of a JSON object.

    Every method raises ValueError with one line that names the item, what it is, and what was expected.

    Args:
        value: the object.
        place: its name in messages; "" for the document itself.
    """

    def __init__(self, value: object, place: str = "") -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{place or 'it'} is {shown(value)}, expected an object")
        self._items: dict[str, Any] = value
        self._place = place

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self._get(key)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(key, f"a whole number from {low} to {high}")
        return value

    def integer_or_none(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, or null."""
        return None if self._get(key) is None else self.integer(key, low, high)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str:
        """A text."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def rows(self, key: str) -> list[Any]:
        """A list."""
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value

    def object(self, key: str) -> dict[str, Any]:
        """An object."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def inner(self, key: str) -> Fields:
        """The items of an object in this one."""
        return Fields(self._get(key), self._name(key))

    def __iter__(self) -> Any:
        return iter(self._items)

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def _get(self, key: str) -> Any:
        if key not in self._items:
            raise ValueError(f"{self._name(key)} is missing")
        return self._items[key]

    def _name(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def _wrong(self, key: str, expected: str) -> ValueError:
        return ValueError(f"{self._name(key)} is {shown(self._items[key])}, expected {expected}")


def shown(value: object, longest: int = 60) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."

"""Text of a run on a page: it shows as text, whatever it holds."""

from __future__ import annotations

from html import escape


def printable(text: str) -> str:
    """A text in which what cannot be printed, or would turn the text around, is spelled out, as `\\u202e`.

    Names of a run may hold newlines, control characters and right-to-left marks.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def html(text: str) -> str:
    """A text for HTML, inside an element or an attribute in double quotes."""
    return escape(printable(text))


def ranged(median: float, low: float, high: float) -> str:
    """A typical number as the page shows it, with its range where that is known and has a length."""
    ends = (shown(low), shown(high))
    return f"{shown(median)} ({ends[0]} to {ends[1]})" if low < high and ends[0] != ends[1] else shown(median)


def shown(value: float) -> str:
    """A number as the page shows it."""
    if value != value:
        return "unknown"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

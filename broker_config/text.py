"""Text from the other side, made safe to log and to show."""

from typing import Final

SHOWN_CHARS_MAX: Final = 120


def shown(text: object, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """One printable line of at most *chars_max* characters; what is not printable is escaped."""
    raw = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)
    cut = raw[: chars_max + 1]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"

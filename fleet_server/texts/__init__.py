"""One catalogue of what people read on dashboards, in alerts and on pages: English is its key, other languages are
``.po`` files (GNU gettext), a directory each. Values go in by name: ``text("{device} is here", device="car-7")``.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Final

from babel.messages.pofile import read_po


class Language(StrEnum):
    """As RFC 5646 names them."""

    EN = "en"
    ZH_HANS = "zh-Hans"


class Texts:
    """The texts of one language. ``missing``: keys asked for that the catalogue lacks; English has all."""

    def __init__(self, language: Language) -> None:
        self.language: Final = language
        self.missing: Final[set[str]] = set()
        self._found = catalogue(language)

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of an English *key*, which stands for itself where there is no other."""
        found = self._found.get(key)
        if found is None:
            found = key
            if self.language is not Language.EN:
                self.missing.add(key)
        return found.format_map(values) if values else found


def marked(key: str) -> str:
    """A key as it is: for texts that are put into a language later; who looks for keys finds it by this name."""
    return key


@lru_cache
def catalogue(language: Language) -> Mapping[str, str]:
    """By English key; empty for English. Raises ValueError: a key with two texts, or without one."""
    found: dict[str, str] = {}
    if language is Language.EN:
        return found
    for file in sorted(files(__name__).joinpath(language.replace("-", "_")).iterdir(), key=lambda each: each.name):
        if not file.name.endswith(".po"):
            continue
        with file.open("rb") as opened:
            messages = read_po(opened, locale=language.replace("-", "_"), abort_invalid=True)
        for message in messages:
            if not message.id:
                continue
            key, text = str(message.id), str(message.string)
            if not text or found.get(key, text) != text:
                raise ValueError(f"{file.name}: expected one text for {key!r}, got {text!r}")
            found[key] = text
    return found

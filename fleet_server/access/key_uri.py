"""Which key in a token is meant: a URI of RFC 7512 and nothing that is secret."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from broker_config.ids import ContractError
from broker_config.text import shown

SCHEME: Final = "pkcs11:"
KEY_URI_CHARS_MAX: Final = 1_024
EXAMPLE: Final = (
    "pkcs11:token=site;object=device-ca?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/site.pin"
)
_PATH: Final = ("token", "object", "id", "type")
_QUERY: Final = ("module-path", "pin-source")
_LETTERS: Final = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*\Z")
"""Printable ASCII, and what is escaped: there is no third way to write an octet."""


class KeyUriError(ContractError):
    """Not the URI of a key; the message never shows a PIN."""


class TokenError(Exception):
    """A token, or the key in it, is not to be had or did not do it; nothing was signed. Says what to do."""


@dataclass(frozen=True, slots=True)
class KeyUri:
    """``token``: its label. ``label``, ``id``: the key's, either may be empty. ``pin_file``: the PIN, on one line."""

    token: str
    label: str
    id: bytes
    module: Path
    pin_file: Path

    @classmethod
    def parse(cls, text: str) -> "KeyUri":
        """Read the text that :data:`EXAMPLE` is one of.

        Raises:
            KeyUriError: not such a URI, an attribute that says something else than is meant here, or a PIN in it.
        """
        if not text.startswith(SCHEME) or len(text) > KEY_URI_CHARS_MAX:
            raise KeyUriError(f"expected a URI of at most {KEY_URI_CHARS_MAX} characters, such as {EXAMPLE}")
        path, _, query = text.removeprefix(SCHEME).partition("?")
        said = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        missing = [name for name in ("token", *_QUERY) if not said.get(name)]
        if not said.get("object") and not said.get("id"):
            missing.append("object or id")
        if missing:
            raise KeyUriError(f"{', '.join(missing)}: missing; expected a URI such as {EXAMPLE}")
        if said.get("type", b"private") != b"private":
            raise KeyUriError(f"type: expected private, got {shown(said['type'])!r}")
        label, token = _text(said, "object"), _text(said, "token")
        return cls(
            token, label, said.get("id", b""), _file(said, "module-path", ""), _file(said, "pin-source", "file:")
        )

    def __str__(self) -> str:
        """For messages: which key of which token."""
        key = " ".join(each for each in (shown(self.label), self.id.hex()) if each)
        return f"key {key} in token {shown(self.token)}"


def is_key_uri(data: bytes) -> bool:
    """Whether what stands where a key could stand is such a URI; whether it is a good one is not looked at."""
    return data.startswith(SCHEME.encode())


def _attributes(text: str, between: str, known: tuple[str, ...]) -> dict[str, bytes]:
    said: dict[str, bytes] = {}
    for each in text.split(between) if text else ():
        name, equals, value = each.partition("=")
        if name == "pin-value":
            raise KeyUriError(
                "pin-value: no PIN belongs into a configuration; put it into a file: pin-source=file:PATH"
            )
        if name not in known:
            raise KeyUriError(f"{shown(name)}: unknown; expected one of {', '.join(known)}")
        if name in said:
            raise KeyUriError(f"{name}: expected once, got it again")
        if not equals or not _LETTERS.match(value):
            raise KeyUriError(f"{name}: expected a value in printable ASCII, everything else as %XX")
        said[name] = unquote_to_bytes(value)
    return said


def _text(said: dict[str, bytes], name: str) -> str:
    try:
        return said.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise KeyUriError(f"{name}: expected UTF-8") from error


def _file(said: dict[str, bytes], name: str, scheme: str) -> Path:
    text = _text(said, name)
    path = text.removeprefix(scheme).removeprefix("//" if scheme else "")
    if not text.startswith(scheme) or not path.startswith("/") or "\0" in path:
        raise KeyUriError(f"{name}: expected {scheme}/ABSOLUTE/PATH")
    return Path(path)

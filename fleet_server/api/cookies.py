"""The cookies of a browser, and whether a request that bears one comes from this server's own pages.

Where people sign in with a provider, all are ``SameSite=Lax``. The one of a sign-in must come along when the provider
sends the browser back, which is a navigation from another site; ``Strict`` would leave it at home. So would the
session's stay on the redirect behind that, and on every link in a mail, and who is signed in would look signed out.
What ``Lax`` lets through are navigations, which only read; what changes something needs more
(:meth:`Cookies.is_from_here`). Where people show a token to a page of this server, nobody else sends a browser here,
and the session's cookie is ``Strict``.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

SESSION: Final = "fieldfleet-session"
SIGN_IN: Final = "fieldfleet-sign-in"
SIGN_OUT: Final = "fieldfleet-sign-out"
HOST_PREFIX: Final = "__Host-"
"""A browser takes such a cookie only over https, and only for this very host: no neighbour can set it."""
OWN_HEADER: Final = "X-Fieldfleet"
OWN_VALUE: Final = "1"
SameSite: TypeAlias = Literal["lax", "strict"]


@dataclass(frozen=True, slots=True)
class Cookies:
    """Of the API that browsers find at *origin*, such as ``https://fleet.example``."""

    origin: str
    same_site: SameSite = "lax"

    @classmethod
    def of(cls, url: str) -> "Cookies":
        """Of an API one of whose URLs is *url*."""
        parts = urlsplit(url)
        return cls(f"{parts.scheme}://{parts.netloc}".lower())

    @classmethod
    def strict(cls, scope: Scope) -> "Cookies":
        """For a page of this server, where the request of *scope* found it: nothing else says what browsers call it.
        A proxy of this machine says so too, if the way to it was https.
        """
        host = Headers(scope=scope).get("host", "")
        return cls(f"{scope['scheme']}://{host}".lower(), "strict")

    @property
    def secure(self) -> bool:
        """Whether they are for https only; http is for this machine alone."""
        return self.origin.startswith("https:")

    def session(self, headers: Headers) -> str | None:
        """What is in the session's cookie."""
        return self._read(headers, SESSION)

    def sign_in(self, headers: Headers) -> str | None:
        """What is in the cookie of the sign-in under way."""
        return self._read(headers, SIGN_IN)

    def sign_out(self, headers: Headers) -> str | None:
        """What is in the cookie of the sign-out under way."""
        return self._read(headers, SIGN_OUT)

    def set_session(self, response: Response, secret: str, *, seconds: int) -> None:
        """Give it to the browser."""
        self._set(response, SESSION, secret, seconds)

    def set_sign_in(self, response: Response, text: str, *, seconds: int) -> None:
        """Give it to the browser."""
        self._set(response, SIGN_IN, text, seconds)

    def set_sign_out(self, response: Response, text: str, *, seconds: int) -> None:
        """Give it to the browser."""
        self._set(response, SIGN_OUT, text, seconds)

    def drop_session(self, response: Response) -> None:
        """Take it back."""
        self._set(response, SESSION, "", 0)

    def drop_sign_in(self, response: Response) -> None:
        """Take it back."""
        self._set(response, SIGN_IN, "", 0)

    def drop_sign_out(self, response: Response) -> None:
        """Take it back."""
        self._set(response, SIGN_OUT, "", 0)

    def is_from_here(self, headers: Headers) -> bool:
        """Whether no foreign site can have made the browser send this: it cannot add a header without being asked
        whether it may, which nobody here allows, and it cannot choose its ``Origin``.
        """
        return headers.get(OWN_HEADER) == OWN_VALUE or headers.get("origin", "").lower() == self.origin

    def _read(self, headers: Headers, name: str) -> str | None:
        found = cookie_parser("; ".join(headers.getlist("cookie"))).get(self._name(name))
        return found or None

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            self._name(name),
            value,
            max_age=seconds,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite=self.same_site,
        )

    def _name(self, name: str) -> str:
        return HOST_PREFIX + name if self.secure else name

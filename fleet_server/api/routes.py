"""Routes before they are in an application: what they have in common is put to them when they are added.

FastAPI's own routers make each route where it stands, and again where its router is included: of 170 routes that is a
good part of the time in which this server starts.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.params import Depends

from fleet_server.api import problems

WITH_BODY: Final = frozenset({"PATCH", "POST", "PUT"})
"""Methods whose requests can be too large."""
Said = dict[int | str, dict[str, object]]
"""What a route says of its answers in OpenAPI: by status."""


class Routes(APIRouter):
    """Declared as with FastAPI's router, and made by :meth:`add_to`."""

    def __init__(self, *, tags: Sequence[str]) -> None:
        super().__init__()
        self._under = list(tags)
        self._declared: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401
        """Declare one; ``get``, ``put`` and the others end here. *options*: FastAPI's."""
        self._declared.append((path, endpoint, options))

    def add_to(self, app: FastAPI, *, dependencies: Sequence[Depends] = (), responses: Said | None = None) -> None:
        """Make them in *app*, as ``include_router`` would: *dependencies* before their own, of *responses* theirs."""
        for path, endpoint, options in self._declared:
            takes_body = WITH_BODY & set(options["methods"])
            bounded = problems.responses(HTTPStatus.REQUEST_ENTITY_TOO_LARGE) if takes_body else {}
            common = {
                "tags": [*self._under, *(options["tags"] or ())],
                "dependencies": [*dependencies, *(options["dependencies"] or ())],
                "responses": {**(responses or {}), **bounded, **(options["responses"] or {})},
            }
            app.router.add_api_route(path, endpoint, **(options | common))

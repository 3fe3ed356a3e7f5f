"""The API over a fleet without a broker."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from fleet_server.api.app import create_app
from tests.fleet_server.api.house import House, houses
from tests.fleet_server.fleet import NOW, TOKEN, Fleet, told
from tests.oidc_provider import Provider, provider


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """See :func:`told`; no test here changes it."""
    fleet = told(tmp_path_factory.mktemp("fleet") / "store.db")
    yield fleet
    fleet.store.close()


@pytest.fixture(scope="package")
def app(fleet: Fleet) -> FastAPI:
    """The API of it."""
    return create_app(fleet.ports, clock=lambda: NOW)


@asynccontextmanager
async def client_of(app: FastAPI, *, token: str | None = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to *app* without a socket."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        yield client


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Bears the token."""
    async with client_of(app) as speaking:
        yield speaking


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Bears none."""
    async with client_of(app, token=None) as speaking:
        yield speaking


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Fleet]:
    """As ``fleet``, and a test may change it."""
    fleet = told(tmp_path / "store.db")
    yield fleet
    fleet.store.close()


@pytest.fixture
async def api(own: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    """Bears the token, over ``own``."""
    async with client_of(create_app(own.ports, clock=lambda: NOW)) as client:
        yield client


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    """A real provider."""
    with provider() as found:
        yield found


@pytest.fixture
def house(tmp_path: Path, idp: Provider) -> Iterator[Callable[..., House]]:
    """Builds servers that people sign in to."""
    with houses(tmp_path / "house.db", idp) as build:
        yield build

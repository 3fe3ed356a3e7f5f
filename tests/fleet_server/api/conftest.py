"""The API over a fleet without a broker."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from fleet_server.api.app import create_app
from tests.fleet_server.fleet import NOW, TOKEN, Fleet, told


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

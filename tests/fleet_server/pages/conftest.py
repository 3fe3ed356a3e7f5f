"""Pages over a fleet without a broker."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx
import pytest
from fastapi import FastAPI

from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.access.visits import Visits
from fleet_server.alerting.view import Alert
from fleet_server.api.app import create_app
from fleet_server.evidence.facts import Progress
from fleet_server.pages.app import Beside, add_pages
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from fleet_server.standing.sample import Sample
from tests.fleet_server.fleet import NOW, T0, TOKEN, Fleet, told

ORIGIN: Final = "http://127.0.0.1:8470"
FROM_HERE: Final = {"Origin": ORIGIN}


@dataclass
class Pages:
    """A fleet in two stations, and what is told beside it; ``now_ms``: the pages' clock."""

    fleet: Fleet
    alerting: list[Alert] = field(default_factory=list)
    standing: list[Sample] = field(default_factory=list)
    moving: list[Progress] = field(default_factory=list)
    now_ms: int = NOW
    tokens: int = 0
    _app: FastAPI | None = None

    def alerts(self) -> list[Alert]:
        """See AlertsView."""
        return self.alerting

    def samples(self, now_ms: int) -> list[Sample]:
        """See Standing."""
        return self.standing

    def token(self, role: Role, node: str) -> str:
        """A new one of that role at that node."""
        self.tokens += 1
        name = f"{role}-{self.tokens}".replace("_", "-")
        grants = [NodeGrant(role, node)]
        return self.fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=T0).secret

    @asynccontextmanager
    async def browser(self, token: str | None = TOKEN, *, language: str = "en") -> AsyncIterator[httpx.AsyncClient]:
        """Signed in with *token*; None: not."""
        if self._app is None:
            self._app = self._made()
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        headers = {"Accept-Language": language}
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as browser:
            if token is not None:
                answer = await browser.post("/sign-in", data={"token": token}, headers=FROM_HERE)
                assert answer.status_code == 303, answer.text
            yield browser

    def _made(self) -> FastAPI:
        ports = replace(self.fleet.ports, visits=Visits(self.fleet.people), alerts=self)
        app = create_app(ports, clock=lambda: self.now_ms)
        add_pages(app, ports, Beside(standing=self, under_way=lambda: self.moving), clock=lambda: self.now_ms)
        return app


def placed(fleet: Fleet) -> None:
    """Centre hq with station-7, where car-7 is, and station-8, where room-1 is."""
    for node in (
        OrgNode("hq", NodeKind.CENTRE, "Command centre"),
        OrgNode("station-7", NodeKind.STATION, "Station 7", "hq"),
        OrgNode("station-8", NodeKind.STATION, "Station 8", "hq"),
    ):
        fleet.registry.put_node(node, expected=None, create=True, now_ms=T0)
    for device, device_class, station in (
        ("car-7", "in_car_terminal", "station-7"),
        ("room-1", "interrogation_room", "station-8"),
    ):
        wanted = Registration(device, device_class, node=station)
        fleet.registry.register(wanted, expected=None, create=True, now_ms=T0)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Two devices, each at its station, and a token of each role at station-7; no test changes it."""
    fleet = told(tmp_path_factory.mktemp("pages") / "store.db")
    placed(fleet)
    yield Pages(fleet)
    fleet.store.close()


@pytest.fixture
def pages(shared: Pages) -> Pages:
    """What a test tells beside the fleet is its own."""
    shared.alerting, shared.standing, shared.moving, shared.now_ms = [], [], [], NOW
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Pages]:
    """As ``pages``, and a test may change it."""
    fleet = told(tmp_path / "store.db")
    placed(fleet)
    yield Pages(fleet)
    fleet.store.close()

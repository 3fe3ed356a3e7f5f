"""Pages over a fleet without a broker."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx
import pytest

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

    def alerts(self) -> list[Alert]:
        """See AlertsView."""
        return self.alerting

    def samples(self, now_ms: int) -> list[Sample]:
        """See Standing."""
        return self.standing

    def token(self, role: Role, node: str) -> str:
        """Of that role at that node."""
        name = f"{role}-{node}".replace("_", "-")
        grants = [NodeGrant(role, node)]
        return self.fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=T0).secret

    @asynccontextmanager
    async def browser(self, token: str | None = TOKEN, *, language: str = "en") -> AsyncIterator[httpx.AsyncClient]:
        """Signed in with *token*; None: not."""
        ports = replace(self.fleet.ports, visits=Visits(self.fleet.people), alerts=self)
        app = create_app(ports, clock=lambda: self.now_ms)
        add_pages(app, ports, Beside(standing=self, under_way=lambda: self.moving), clock=lambda: self.now_ms)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Accept-Language": language}
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as browser:
            if token is not None:
                answer = await browser.post("/sign-in", data={"token": token}, headers=FROM_HERE)
                assert answer.status_code == 303, answer.text
            yield browser


Browser = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


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


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    """Two devices, each at its station."""
    fleet = told(tmp_path / "store.db")
    placed(fleet)
    yield Pages(fleet)
    fleet.store.close()

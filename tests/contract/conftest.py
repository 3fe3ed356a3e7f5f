"""The brokers that the conformance suite runs against; each is held to the same policy table."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import pytest

from broker_config.ids import DeviceId, SiteId, device_id
from fleet_server.access import ca
from tests.servers import Credentials, embedded, mosquitto


class Broker(Protocol):
    """A running broker under the product's own policy.

    ``crl``: the revocation list that counts from the next :meth:`restart`; None is none.
    """

    crl: bytes | None

    @property
    def device_port(self) -> int: ...
    @property
    def server_port(self) -> int: ...
    @property
    def site(self) -> SiteId: ...
    @property
    def device_ca(self) -> ca.Issued: ...
    @property
    def server_ca(self) -> ca.Issued: ...
    def device(self, device: DeviceId, /) -> Credentials: ...
    def server(self) -> Credentials: ...
    def credentials(self, name: str, issued: ca.Issued, /) -> Credentials: ...
    def restart(self) -> None: ...


Start = Callable[[Path], AbstractContextManager[Broker]]
STARTS: Final[dict[str, Start]] = {"mosquitto": mosquitto, "embedded": embedded}
BROKERS = [pytest.param("mosquitto", marks=pytest.mark.server("mosquitto")), "embedded"]

_numbers = count(1)


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with STARTS[request.param](tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(params=BROKERS)
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """One that no other test sees, to be reconfigured and restarted."""
    with STARTS[request.param](tmp_path) as running:
        yield running


@pytest.fixture
def own() -> DeviceId:
    """A device that no other test has used: nothing of it is retained or queued."""
    return device_id(f"own-{next(_numbers)}")


@pytest.fixture
def sibling() -> DeviceId:
    return device_id(f"sibling-{next(_numbers)}")

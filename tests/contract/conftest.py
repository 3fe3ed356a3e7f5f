"""The brokers that the conformance suite runs against; each is held to the same policy table."""

from collections.abc import Iterator
from itertools import count
from typing import Protocol

import pytest

from broker_config.ids import DeviceId, SiteId, device_id
from fleet_server.access import ca
from tests.servers import Credentials, mosquitto


class Broker(Protocol):
    """A running broker under the product's own policy."""

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


BROKERS = [pytest.param("mosquitto", marks=pytest.mark.server("mosquitto"))]

_numbers = count(1)


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    assert request.param == "mosquitto"
    with mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def own() -> DeviceId:
    """A device that no other test has used: nothing of it is retained or queued."""
    return device_id(f"own-{next(_numbers)}")


@pytest.fixture
def sibling() -> DeviceId:
    return device_id(f"sibling-{next(_numbers)}")

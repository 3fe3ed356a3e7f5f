"""Wires what changes devices at a distance: twins and layers in the database, composing, the link, the threads."""

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from fleet_server.adapters.signer_socket import SocketSigner
from fleet_server.adapters.sql.assignments import SqlAssignments
from fleet_server.adapters.sql.config_layers import SqlLayers
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sql.twins import SqlTwins
from fleet_server.api.twins import Change
from fleet_server.broker_links import link_settings
from fleet_server.change.circumstances import Circumstances, CircumstancesOf, Given
from fleet_server.change.composing import Composer
from fleet_server.change.facts import TwinFacts
from fleet_server.change.service import TwinService, TwinSettings
from fleet_server.config import Config
from fleet_server.projection.labels import CLASS_UNKNOWN, ORG_UNASSIGNED
from fleet_server.registry.assignment_store import Holders
from fleet_server.registry.keeper import Keeper
from fleet_server.telemetry.view import TelemetryView
from fleet_server.threads import Looped, Resumed


class Changing:
    """What runs beside telemetry: a thread that composes, and one with a loop of its own for the link. Without a
    signer what is desired is kept, and told nobody.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        registry: SqlRegistry,
        keeper: Keeper,
        view: TelemetryView,
        security: ssl.SSLContext,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._engine = engine
        self._registry = registry
        self._keeper = keeper
        self._view = view
        self._security = security
        self._now_ms = now_ms
        self.twins = SqlTwins(engine)
        self.layers = SqlLayers(engine)
        self.composer = Composer(self.twins, self.layers, registry, published=self.published, now_ms=now_ms)
        registry.when_placed(self.composer.moved)
        self._service: TwinService | None = None
        self._threads: list[Resumed | Looped] = [
            Resumed("composer", self.composer.run, wake=self.composer.wake),
        ]
        if config.signer.socket_file is not None:
            self._threads.append(Looped("twins", self._serve))

    @property
    def ports(self) -> Change:
        """What the API stands on."""
        return Change(
            self.twins, self.layers, self.composer, circumstances_of(self._registry, SqlAssignments(self._engine))
        )

    def start(self) -> None:
        """Compose, and speak with devices."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """In order; what is not composed is at the next start."""
        for thread in reversed(self._threads):
            thread.stop()

    def facts(self) -> TwinFacts | None:
        """None: it has not begun, or there is no signer."""
        return None if self._service is None else self._service.facts()

    def published(self, made: Mapping[str, int]) -> None:
        """New versions are desired of these devices."""
        if self._service is not None:
            self._service.published(made)

    async def _serve(self, stop: asyncio.Event) -> None:
        self._service = self._made()
        await self._service.run(stop)

    def _made(self) -> TwinService:
        config = self._config
        assert config.signer.socket_file is not None
        return TwinService(
            TwinSettings(config.shards, config.signer.lifetime_ms_max),
            link_settings(config, self._security, work="twins"),
            self.twins,
            SocketSigner(config.signer.socket_file),
            known=self._knows,
            connected=self._is_connected,
            now_ms=self._now_ms,
            rng=random.Random(),  # noqa: S311 - jitter
        )

    def _knows(self, device: str) -> bool:
        """A new device speaks of its twin as soon as of itself: then its birth is entered first."""
        if not self._registry.knows(device):
            while self._keeper.look():
                pass
        return self._registry.knows(device)

    def _is_connected(self, device: str) -> bool:
        found = self._view.presence_of(device)
        return found is not None and found.connected


def circumstances_of(registry: SqlRegistry, holders: Holders) -> CircumstancesOf:
    """As the registry, and who gives devices out, know them."""

    def circumstances(device: str, at_ms: int) -> Circumstances:
        found_class, found_path = registry.labels(device, at_ms)
        device_class = "" if found_class == CLASS_UNKNOWN else found_class
        path = "" if found_path == ORG_UNASSIGNED else found_path
        found = registry.device(device)
        held = holders.holder_at(device, at_ms)
        given = None if held is None else Given(held.path, *held.whom)
        if found is None or found.reported.at_ms is None or found.reported.at_ms > at_ms:
            return Circumstances(device_class, path, given=given)
        said = found.reported
        return Circumstances(
            device_class, path, said.agent, said.hardware, said.profile, said.profile_digest, given=given
        )

    return circumstances

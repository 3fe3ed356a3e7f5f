"""Wires releases over the broker: the link, in a thread and a loop of its own."""

import asyncio
import random
import ssl

from fleet_server.broker_links import link_settings
from fleet_server.config import Config
from fleet_server.release_service import ReleaseFacts, ReleaseService
from fleet_server.releases.store import Releases
from fleet_server.threads import Looped


class ReleaseChunks:
    """Made, started, stopped, in this order; nothing to do where nobody releases."""

    def __init__(self, config: Config, releases: Releases | None, security: ssl.SSLContext) -> None:
        """*releases*: the port of the devices' listener; None: there are none."""
        self._config = config
        self._releases = releases
        self._security = security
        self._service: ReleaseService | None = None
        self._thread = Looped("release chunks", self._serve)

    def start(self) -> None:
        """Answer devices."""
        if self._releases is not None:
            self._thread.start()

    def stop(self) -> None:
        """In order; what was not answered is asked again."""
        self._thread.stop()

    def facts(self) -> ReleaseFacts | None:
        """None: it has not begun."""
        return None if self._service is None else self._service.facts

    async def _serve(self, stop: asyncio.Event) -> None:
        assert self._releases is not None
        self._service = ReleaseService(
            self._config.shards,
            link_settings(self._config, self._security, work="releases"),
            self._releases,
            rng=random.Random(),  # noqa: S311 - jitter
        )
        await self._service.run(stop)

"""Wires commands: their store, the link, the threads."""

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Engine

from broker_config import signing
from broker_config.ids import ContractError
from broker_config.signing import Roots
from fleet_server.adapters.signer_socket import SocketSigner
from fleet_server.adapters.sql.commands import SqlCommands
from fleet_server.api.commands import Commanding as Ports
from fleet_server.api.commands import Fitting
from fleet_server.broker_links import link_settings
from fleet_server.change import commands as rules
from fleet_server.change.command_service import CommandService, CommandSettings
from fleet_server.change.commands import Word
from fleet_server.change.facts import CommandFacts
from fleet_server.config import Config
from fleet_server.telemetry.view import TelemetryView
from fleet_server.threads import Looped

EVENTS_A_LOOK: Final = 2_000
LOOKS_MAX: Final = 10
"""Of one journal at once; what is behind it is read when what is before it is waited for no more."""


class Commanding:
    """What runs beside telemetry, in a thread and a loop of its own; without a signer nothing is ordered."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        view: TelemetryView,
        security: ssl.SSLContext,
        signers_json: Callable[[], str],
        *,
        fitting: Fitting,
        now_ms: Callable[[], int],
    ) -> None:
        """*signers_json*: whom devices obey, empty if nobody. *fitting*: whom a selector means."""
        self._config = config
        self._view = view
        self._security = security
        self._signers_json = signers_json
        self._fitting = fitting
        self._now_ms = now_ms
        self._store = SqlCommands(engine)
        socket_file = config.signer.socket_file
        self._signer = None if socket_file is None else SocketSigner(socket_file)
        self._service: CommandService | None = None
        self._thread = Looped("commands", self._serve)

    @property
    def ports(self) -> Ports:
        """What the API stands on."""
        lifetime_ms = self._config.signer.lifetime_ms_max
        return Ports(self._store, self._wake, self._roots, self._signer, self._fitting, lifetime_ms)

    def start(self) -> None:
        """Speak with devices."""
        if self._signer is not None:
            self._thread.start()

    def stop(self) -> None:
        """In order; what was said is said again at the next start."""
        self._thread.stop()

    def facts(self) -> CommandFacts | None:
        """None: it has not begun, or there is no signer."""
        return None if self._service is None else self._service.facts()

    def _wake(self) -> None:
        if self._service is not None:
            self._service.wake()

    def _roots(self) -> Roots | None:
        try:
            return signing.decode_roots(self._signers_json().encode())
        except ContractError:
            return None

    async def _serve(self, stop: asyncio.Event) -> None:
        self._service = self._made()
        await self._service.run(stop)

    def _made(self) -> CommandService:
        config = self._config
        assert self._signer is not None
        return CommandService(
            CommandSettings(config.shards),
            link_settings(config, self._security, work="commands"),
            self._store,
            self._signer,
            self._journal_of,
            now_ms=self._now_ms,
            rng=random.Random(),  # noqa: S311 - jitter
        )

    def _journal_of(self, device: str, from_ms: int, to_ms: int) -> Sequence[Word]:
        """See :data:`fleet_server.change.command_store.JournalOf`."""
        out: list[Word] = []
        for _ in range(LOOKS_MAX):
            found = self._view.events(device, from_ms=from_ms, to_ms=to_ms, rows_max=EVENTS_A_LOOK)
            out += [word for event in found if (word := rules.word_in(device, event)) is not None]
            if len(found) < EVENTS_A_LOOK or found[-1].at_ms == from_ms:
                break
            from_ms = found[-1].at_ms
        return out

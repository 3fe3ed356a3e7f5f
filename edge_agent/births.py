"""What a device says of itself when it connects, and when it says it again."""

from collections.abc import Mapping
from typing import Final

from broker_config.ids import Hex16
from broker_config.messages import Birth
from broker_config.ranges import Ranges
from edge_agent import spool
from edge_agent.adapters.system import System, hardware
from edge_agent.config import Settings
from edge_agent.keeper import Keeper

AGENT: Final = "fieldfleet/0.1.0"
AGAIN_S: Final = 5.0
"""A birth that explains what a receipt misses is not repeated sooner."""

_Explained = Mapping[tuple[str, str], Ranges]
"""(stream, life) -> what is gone of it: what a birth explains."""


class Births:
    """Calls are the agent's loop's."""

    def __init__(self, settings: Settings, system: System, keeper: Keeper) -> None:
        self._settings = settings
        self._system = system
        self._keeper = keeper
        self._hardware = hardware()
        self._explained: _Explained = {}
        self._said_s = 0.0

    def due(self, now_s: float, *, wanted: bool) -> bool:
        """Whether it is to be said again: it is *wanted*, or more is gone than it explained."""
        wanted = wanted or self._explained != self._to_explain()
        return wanted and now_s - self._said_s >= AGAIN_S

    def make(self, epoch: Hex16, keep_alive_s: int, *, signers: int, kid: str) -> Birth:
        """As of now; it counts as said."""
        every_ms = {wire.stream: int(wire.every_s * 1000) for wire in self._settings.profile.wires}
        self._explained = self._to_explain()
        self._said_s = self._system.mono_s()
        return Birth(
            v=1,
            epoch=epoch,
            boot=self._system.boot,
            mono=self._system.mono_ms(),
            keep_alive_s=keep_alive_s,
            agent=AGENT,
            device_class=self._settings.device_class.name,
            profile=self._settings.profile.name[:64],
            store_epoch=self._keeper.store_epoch,
            seal_ms=int(self._settings.file.seal_s * 1000),
            streams=tuple(
                spool.stream_state(ledger, every_ms.get(ledger.stream, 0) if ledger.current else 0)
                for ledger in spool.told(self._keeper.ledgers())
            ),
            profile_digest=self._settings.profile.digest,
            hardware=self._hardware,
            signers=signers,
            kid=kid,
        )

    def _to_explain(self) -> _Explained:
        return {(ledger.stream, ledger.life): ledger.gone for ledger in spool.told(self._keeper.ledgers())}

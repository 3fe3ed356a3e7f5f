"""A simulated device's twin: takes up what is desired at once, and reports it until the server knows.

It checks no signature: that is a child process on a device, and its cost is not the server's. It applies nothing, so
what it reports is what was desired.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from broker_config import signing, twin
from broker_config.ids import ContractError
from broker_config.twin import AskTwin, BadTwinError, ChangeState, Desired, Document, Reported

SAY_AGAIN_S: Final = 5.0
SAY_AGAIN_S_MAX: Final = 300.0
"""From the first to the longest pause before it says again what the server does not know."""


class Confirmed(NamedTuple):
    """A desired version, and when the server was known to have committed that it is in force; a clock that never
    jumps.
    """

    version: int
    s: float


@dataclass(slots=True)
class Twin:
    """``known_s``: of each desired version that it took up, when the server's word came that its report is kept."""

    boot: str
    version: int = 0
    desired: int = 0
    config: Document = field(default_factory=dict)
    confirmed: list[Confirmed] = field(default_factory=list)
    _known: int = 0
    _asked: int = 0
    _said_s: float = 0.0
    _pause_s: float = SAY_AGAIN_S

    @property
    def next_s(self) -> float | None:
        """When it says again what the server does not know; None: it knows all."""
        return None if self._known >= self.version else self._said_s + self._pause_s

    def up(self, now_s: float, now_ms: int) -> list[bytes]:
        """A connection stands: what goes out on ``up/twin``."""
        return [self._report(now_s, now_ms), self._ask()]

    def turn(self, now_s: float, now_ms: int) -> list[bytes]:
        """Time has passed."""
        due_s = self.next_s
        if due_s is None or now_s < due_s:
            return []
        self._pause_s = min(SAY_AGAIN_S_MAX, 2 * self._pause_s)
        return [self._report(now_s, now_ms)]

    def told(self, body: bytes, now_s: float, now_ms: int) -> list[bytes]:
        """Something came on ``dn/twin``. Raises ContractError: neither a hint nor an order to be so."""
        try:
            state = twin.decode_state(body)
        except BadTwinError:
            claims = signing.decode_claims(signing.decode_envelope(body))
            return self._take_up(twin.decode_desired(claims), now_s, now_ms)
        if self._known < self.version <= state.reported:
            self.confirmed.append(Confirmed(self.desired, now_s))
        self._known = max(self._known, state.reported)
        if state.desired <= max(self.desired, self._asked):
            return []
        self._asked = state.desired
        return [self._ask()]

    def _take_up(self, desired: Desired, now_s: float, now_ms: int) -> list[bytes]:
        if desired.version <= self.desired:
            raise ContractError(f"expected a version above {self.desired}, got {desired.version}")
        self.desired, self.config = desired.version, desired.config
        return [self._report(now_s, now_ms, anew=True)]

    def _report(self, now_s: float, now_ms: int, *, anew: bool = False) -> bytes:
        if anew or not self.version:
            self.version, self._pause_s = twin.next_version(self.version, now_ms), SAY_AGAIN_S
        self._said_s = now_s
        return twin.encode(
            Reported(1, self.version, self.boot, self.desired, self.desired, ChangeState.CURRENT, self.config)
        )

    def _ask(self) -> bytes:
        return twin.encode(AskTwin(1, self.desired))

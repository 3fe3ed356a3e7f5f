"""The demo's two changes: a good one that a room with an interview puts off, and a bad one that undoes itself.

Both are rollouts over the API, as an operator begins them and another one agrees to them: signals and rooms are among
the devices. What comes of them is only looked at.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fleet_server.cli import answers
from fleet_server.cli.server import Server

BEGIN_S: Final = 8.0
"""When all devices have long been there."""
ROLLOUTS: Final = "/v1/rollouts"
DEVICES_MAX: Final = 100
CONFIRM_S: Final = 10
CANARY: Final = "camera-12"
ALL: Final = [{"name": "all", "size": "100%", "soak_s": 0, "success_pct": 100}]
GOOD: Final[Mapping[str, Any]] = {
    "name": "say more often that you are there",
    "layer": "fleet",
    "patch": {"keep_alive_s": 12},
    "waves": ALL,
    "rate": {"base_per_min": 1000},
    "confirm_s": CONFIRM_S,
}
BAD: Final[Mapping[str, Any]] = {
    "name": "a port where no broker is",
    "layer": "fleet",
    "patch": {"broker_port": 1},
    "waves": [
        {"name": "canary", "size": "1", "where": f"device=={CANARY}", "success_pct": 100},
        {"name": "all others", "size": "100%"},
    ],
    "rate": {"base_per_min": 1000},
    "abort": [{"kind": "failed", "pct": 0, "min_executed": 1, "action": "cancel"}],
    "confirm_s": CONFIRM_S,
}
SECOND: Final[Mapping[str, Any]] = {
    "token": "second-person",
    "name": "Who agrees to what another one asked for",
    "grants": [{"role": "equipment_manager"}],
    "days": 1,
}
WAITS: Final = "waiting_approval"
ENDED: Final = frozenset({"completed", "canceled", "rolled_back"})


class _Rollout(msgspec.Struct, frozen=True):
    rollout: str
    phase: str
    why: str
    counts: dict[str, int]


class _Made(msgspec.Struct, frozen=True):
    rollout: _Rollout


class _Token(msgspec.Struct, frozen=True):
    secret: str


class _Member(msgspec.Struct, frozen=True):
    device: str
    state: str
    reason: str


class _Members(msgspec.Struct, frozen=True):
    devices: list[_Member]


class Rollout(msgspec.Struct, frozen=True):
    """How one stands. ``devices``: state of each; ``waited``: device -> why it did not take it up at once;
    ``ended_s``: of the demo, null while it goes on.
    """

    name: str
    phase: str
    why: str
    devices: dict[str, str]
    waited: dict[str, str]
    ended_s: float | None

    @property
    def counts(self) -> dict[str, int]:
        """State -> devices."""
        states = list(self.devices.values())
        return {state: states.count(state) for state in sorted(set(states))}


class Changes:
    """Begins both at BEGIN_S, and follows them. ``rollouts``: as last seen, the good one first."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ids: list[str] = []
        self._second = ""
        self.rollouts: list[Rollout] = []

    def look(self, at_s: float) -> None:
        """*at_s*: of the demo. Raises CommandError."""
        if at_s < BEGIN_S:
            return
        if not self._ids:
            self._begin(GOOD)
        elif len(self._ids) == 1 and self.rollouts[0].ended_s is not None:
            # not before: of two rollouts that mean a device the newer takes the older one's place
            self._begin(BAD)
        self.rollouts = [
            before if before.ended_s is not None else self._seen(rollout, before, at_s)
            for rollout, before in zip(self._ids, self.rollouts, strict=True)
        ]

    def _begin(self, plan: Mapping[str, Any]) -> None:
        made = answers.read(self._server.send("POST", ROLLOUTS, json=dict(plan)), _Made).rollout
        if made.phase == WAITS:
            self._second = (
                self._second
                or answers.read(self._server.send("POST", "/v1/tokens", json=dict(SECOND)), _Token).secret
            )
            path = f"{ROLLOUTS}/{made.rollout}/approve"
            self._server.send("POST", path, headers={"Authorization": f"Bearer {self._second}"})
        self._ids.append(made.rollout)
        self.rollouts.append(Rollout(plan["name"], "", "", {}, {}, None))

    def _seen(self, rollout: str, before: Rollout, at_s: float) -> Rollout:
        path = f"{ROLLOUTS}/{rollout}"
        now = answers.read(self._server.get(path), _Rollout)
        listed, _ = self._server.list_all(f"{path}/devices", "devices", entries_max=DEVICES_MAX)
        members = answers.read(listed, _Members).devices
        waited = {each.device: each.reason for each in members if each.state == "waiting" and each.reason}
        return Rollout(
            before.name,
            now.phase,
            now.why,
            {each.device: each.state for each in members},
            {**before.waited, **waited},
            round(at_s, 1) if now.phase in ENDED else None,
        )


def told(rollout: Rollout) -> str:
    """One line of it."""
    counts = ", ".join(f"{count} {state}" for state, count in rollout.counts.items())
    waited = "; ".join(f"{device} {why}" for device, why in rollout.waited.items())
    parts = [rollout.phase or "beginning", counts, waited, rollout.why]
    return f"rollout '{rollout.name}': {'  '.join(part for part in parts if part)}"

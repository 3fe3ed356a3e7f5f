"""``ntcip1202``: an actuated signal controller that speaks NTCIP 1202 and 1201 over SNMP."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from firmware_bridge import ntcip
from firmware_bridge.adapters import snmp
from firmware_bridge.adapters.snmp import AgentError, SnmpAgent, SnmpOptions
from firmware_bridge.driver import Driver, MonoMs, Resource, all_failed
from firmware_bridge.ntcip import Layout, Oid
from firmware_bridge.readings import Failed, Quality, Reading, Result, Results

ROUNDS_MAX: Final = 3
"""Of questions for one reading: what is needed, and what that shows to be needed."""
DETECTORS_MAX: Final = 64
CLOCK_S_MAX: Final = 5
"""So far may a clock that was set have run on when it is read back."""


class NtcipOptions(SnmpOptions, frozen=True, kw_only=True):
    """``phase_groups``: of eight phases each. ``detectors``: the numbers of those that are summed up. ``writable``:
    setting -> the values that may be written, an empty list is each that the object takes; what is not in it is never
    written.
    """

    phase_groups: Annotated[int, Meta(ge=1, le=4)] = 1
    detectors: Annotated[tuple[Annotated[int, Meta(ge=1, le=255)], ...], Meta(max_length=DETECTORS_MAX)] = ()
    writable: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        foreign = sorted(set(self.writable) - set(ntcip.SETTINGS))
        if foreign:
            raise ValueError(f"writable: expected of {', '.join(ntcip.SETTINGS)}, got {', '.join(foreign)[:80]}")

    def agent(self) -> tuple[object, ...]:
        """What two users of one controller must agree on."""
        return (self.version, self.community, self.write_community, self.timeout_ms, self.retries)


class Ntcip1202(Driver):
    """Wires that name the same controller share its socket, one question at a time."""

    kind = "ntcip1202"
    summary = "signal controller over SNMP v1 or v2c: NTCIP 1202 phases, patterns, detectors, alarms; 1201 time"
    points = ntcip.POINTS
    options_type = NtcipOptions
    example = (
        'at = "udp:192.0.2.20"\nversion = "1"\ncommunity = "public"\nphase_groups = 2\ndetectors = [1, 2, 3, 4]\n'
        "writable = { plan = [1, 2, 3, 254] }"
    )

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, NtcipOptions)
        self._told = options
        self._layout = Layout(options.phase_groups, options.detectors)
        self._agent: SnmpAgent | None = None

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, NtcipOptions)
        host, port = snmp.parse_address(options.at)
        return (f"udp:{host}:{port}", (cls.kind, *options.agent()))

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        until_s = asyncio.get_running_loop().time() + deadline_s
        known: dict[Oid, int | Failed] = {}
        try:
            for _ in range(ROUNDS_MAX):
                wanted = ntcip.needs(points, self._layout, known)
                if not wanted:
                    break
                clock = () if known else (ntcip.GLOBAL_TIME,)
                known |= await self._joined().get(tuple(dict.fromkeys((*clock, *wanted))), until_s)
        except AgentError as error:
            if not known:
                return all_failed(points, str(error))
        now_ms = self._mono_ms()
        return {point: self._result(point, known, now_ms) for point in points}

    def _result(self, point: str, known: Mapping[Oid, int | Failed], now_ms: int) -> Result:
        found = ntcip.value(point, self._layout, known)
        if isinstance(found, Failed):
            return found
        return Reading(found, Quality.GOOD, ntcip.device_ms(known), now_ms)

    async def write(self, settings: Mapping[str, float], deadline_s: float) -> Results:
        """Write each of *settings* that the list allows, one after the other, and only while the conflict monitor
        says that all is well; a setting's result is what was read back, or why it is not as asked.
        """
        until_s = asyncio.get_running_loop().time() + deadline_s
        return {name: await self._write(name, value, until_s) for name, value in settings.items()}

    async def _write(self, name: str, value: float, until_s: float) -> Result:
        why = ntcip.why_not_write(name, value, self._told.writable, None)
        if why is not None:
            return Failed(f"not written: {why}")
        setting, agent = ntcip.SETTINGS[name], self._joined()
        try:
            guard = await agent.get(ntcip.GUARD, until_s)
        except AgentError as error:
            return Failed(f"not written: the conflict monitor cannot be read: {error}")
        why = ntcip.why_not_write(name, value, self._told.writable, guard)
        if why is not None:
            return Failed(f"not written: {why}")
        refused: str | None = None
        with contextlib.suppress(AgentError):  # whether it was done shows when it is read
            refused = await agent.set(setting.oid, int(value), counter=setting.counter, until_s=until_s)
        if refused is not None:
            return Failed(f"not written: {refused}")
        return await self._read_back(agent, setting.oid, value, until_s)

    async def _read_back(self, agent: SnmpAgent, oid: Oid, value: float, until_s: float) -> Result:
        try:
            found = (await agent.get((oid,), until_s))[oid]
        except AgentError as error:
            return Failed(f"unknown whether it was written: {error}")
        if isinstance(found, Failed):
            return Failed(f"unknown whether it was written: {found.why}")
        if oid != ntcip.GLOBAL_TIME and found != value:
            return Failed(f"written, but read back as {found}")
        if oid == ntcip.GLOBAL_TIME and not 0 <= found - value <= CLOCK_S_MAX:  # a clock runs on
            return Failed(f"written, but read back as {found}")
        return Reading(float(found), Quality.GOOD, None, self._mono_ms())

    def _joined(self) -> SnmpAgent:
        if self._agent is None:
            self._agent = snmp.join(self._told)
        return self._agent

    async def close(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            snmp.leave(self._told, agent)

"""Plays a signal controller that speaks NTCIP 1202 on pysnmp's own agent: the crossing of the cabinet that
``modbus.Cabinet`` plays. It is only read: nothing is written in a play.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pysnmp.carrier.asyncio.dgram import udp  # type: ignore[import-untyped]
from pysnmp.entity import config, engine  # type: ignore[import-untyped]
from pysnmp.entity.rfc3413 import cmdrsp, context  # type: ignore[import-untyped]
from pysnmp.proto.api import v2c  # type: ignore[import-untyped]
from pysnmp.smi.instrum import AbstractMibInstrumController  # type: ignore[import-untyped]

from firmware_bridge import ntcip
from firmware_bridge.ntcip import Oid

HOST: Final = "127.0.0.1"
COMMUNITY: Final = "public"
DETECTORS: Final = (1, 2, 3, 4)
CYCLE_S: Final = 80
OFFSET_S: Final = 14
PHASES: Final = 4
PATTERN: Final = 3
PERIOD_S: Final = 60
_ASC: Final[Oid] = (1, 3, 6, 1, 4, 1, 1206, 4, 2, 1)
_ROOT: Final[Oid] = (1, 3, 6, 1, 4, 1, 1206)


class Controller:
    """What its objects hold, as a function of the seconds since the start."""

    flash_status = ntcip.NOT_FLASH

    def __init__(self, seed: int) -> None:
        self._phase = random.Random(seed).uniform(0, 2 * math.pi)  # noqa: S311  # a play

    def objects(self, seconds: float, utc_s: float) -> dict[Oid, int]:
        """Object -> its number, but for the time integers."""
        green = int(seconds % CYCLE_S * PHASES / CYCLE_S)
        flow = math.sin(self._phase + 2 * math.pi * seconds / 300)
        table = (*_ASC, 2, 5, 4, 1)
        return {
            (*_ASC, 1, 4, 1, 2, 1): 0xFF & ~(1 << green),
            (*_ASC, 1, 4, 1, 3, 1): 0,
            (*_ASC, 1, 4, 1, 4, 1): 1 << green,
            (*_ASC, 4, 7, 1, 2, PATTERN): CYCLE_S,
            (*_ASC, 4, 7, 1, 3, PATTERN): OFFSET_S,
            ntcip.VOLUME_PERIOD_S: PERIOD_S,
            **{(*table, 1, number): round(4 + flow) for number in DETECTORS},
            **{(*table, 2, number): round(36 + 12 * flow) for number in DETECTORS},
            ntcip.CONTROL_STATUS: 2,
            ntcip.FLASH_STATUS: self.flash_status,
            ntcip.ALARM_STATUS_1: 0,
            ntcip.PATTERN_STATUS: PATTERN,
            ntcip.GLOBAL_TIME: int(utc_s),
        }


class _Objects(AbstractMibInstrumController):  # type: ignore[misc]  # untyped
    """The agent asks it for values; access was decided by then, there is one view of all that is here."""

    def __init__(self, held: Callable[[], dict[Oid, int]]) -> None:
        self._held = held

    def read_variables(self, *asked: tuple[Sequence[int], object], **_: object) -> list[tuple[Sequence[int], object]]:
        held = self._held()
        return [(oid, _value(tuple(oid), held)) for oid, _nothing in asked]


def _value(oid: Oid, held: dict[Oid, int]) -> object:
    if oid not in held:
        return v2c.NoSuchInstance()
    return (v2c.Counter32 if oid == ntcip.GLOBAL_TIME else v2c.Integer32)(held[oid])


class SnmpPeripheral:
    """A controller at a port of the loopback. *mark*: a file that is there as long as it is."""

    def __init__(
        self, controller: Controller, port: int, mark: Path, now_s: Callable[[], float], utc_s: Callable[[], float]
    ) -> None:
        self._port = port
        self._mark = mark
        self._objects = _Objects(lambda: controller.objects(now_s(), utc_s()))
        self._engine: Any = None

    @property
    def plugged(self) -> bool:
        """Whether it is there."""
        return self._engine is not None

    def plug(self) -> None:
        """Answer."""
        assert not self.plugged, "plugged already"
        found = self._engine = engine.SnmpEngine()
        transport = udp.UdpTransport().open_server_mode((HOST, self._port))
        config.add_transport(found, udp.DOMAIN_NAME, transport)
        config.add_v1_system(found, "area", COMMUNITY)
        for model in (1, 2):
            config.add_vacm_user(found, model, "area", "noAuthNoPriv", _ROOT)
        held = context.SnmpContext(found)
        held.unregister_context_name(b"")
        held.register_context_name(b"", self._objects)
        cmdrsp.GetCommandResponder(found, held)
        self._mark.write_text(f"{self._port}\n", encoding="ascii")

    def unplug(self) -> None:
        """Be gone. Idempotent."""
        found, self._engine = self._engine, None
        if found is not None:
            self._mark.unlink(missing_ok=True)
            found.close_dispatcher()

"""Plays controllers that answer a query line with name=value pairs: a body camera's, and a patrol car's."""

import math
import random
from typing import Final

from firmware_bridge.peripherals.drive import Drive

GIB: Final = 1024**3
IDLE_RPM: Final = 780


class Camera:
    """Power, memory, recorder, backlog and radio of a body camera."""

    def __init__(self, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311  # a play
        self._charge_pct = dice.uniform(60, 98)
        self._phase_s = dice.uniform(0, 120)

    def answer(self, query: str, seconds: float) -> str:
        """Empty: silence, for a query that it does not know."""
        recording = (seconds + self._phase_s) % 120 < 45
        recorded = int((seconds + self._phase_s) // 120)
        match query:
            case "POWER?":
                charge = max(0.0, self._charge_pct - seconds / 360)
                temperature = 31 + 4 * math.sin(seconds / 200)
                return f"battery_pct={charge:.1f} battery_temp_c={temperature:.1f} charging=0"
            case "STORAGE?":
                used = 20 + recorded // 8
                return f"free_bytes={(128 - used) * GIB} locked_bytes={min(used, 6) * GIB} write_errors=0"
            case "RECORDER?":
                return f"recording={recording:d} pre_event_s=30"
            case "BACKLOG?":
                return f"files={recorded + 1} bytes={(recorded + 1) * 45 * 750_000}"
            case "RADIO?":
                return f"rssi_dbm={-71 + 9 * math.sin(seconds / 33):.0f}"
            case _:
                return ""


class Vehicle:
    """The car's own data while it is on the drive of the same seed."""

    def __init__(self, seed: int) -> None:
        self._drive = Drive(seed)

    def answer(self, query: str, seconds: float) -> str:
        """Empty: silence, for a query that it does not know."""
        moment = self._drive.at(seconds)
        match query:
            case "VEHICLE?":
                rpm = IDLE_RPM + 130 * moment.speed_mps
                coolant = 90 - 60 * math.exp(-seconds / 240)
                return (
                    f"ignition=1 supply_v={13.9 + 0.2 * math.sin(seconds / 11):.2f} speed_mps={moment.speed_mps:.2f} "
                    f"rpm={rpm:.0f} coolant_c={coolant:.1f} odometer_km={48_210 + moment.driven_m / 1000:.2f}"
                )
            case "CHANNELS?":
                return "n_ok=4 n_total=4"
            case "RADIO?":
                return f"rssi_dbm={-79 + 11 * math.sin(moment.driven_m / 500):.0f}"
            case _:
                return ""

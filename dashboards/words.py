"""What classes, streams and fields are called by people; keys of the catalogue of texts."""

from collections.abc import Mapping
from typing import Final

from dashboards.panels import Word, Words
from fleet_server.texts import Texts, marked

CLASSES: Final[Mapping[str, str]] = {
    "body_camera": marked("body camera"),
    "host": marked("board"),
    "in_car_terminal": marked("in-car terminal"),
    "interrogation_room": marked("interrogation room"),
    "traffic_light": marked("traffic signal"),
}
STREAMS: Final[Mapping[str, str]] = {
    "av": marked("sound and picture"),
    "backlog": marked("backlog"),
    "cabinet": marked("cabinet"),
    "channels": marked("camera channels"),
    "clock": marked("clock"),
    "cpu": marked("processor"),
    "detectors": marked("detectors"),
    "gnss": marked("position"),
    "lamps": marked("lamps"),
    "memory": marked("working memory"),
    "monitor": marked("conflict monitor"),
    "network": marked("network"),
    "power": marked("power"),
    "radio": marked("radio"),
    "recorder": marked("recorder"),
    "room": marked("room"),
    "signal": marked("signal"),
    "storage": marked("storage"),
    "temperature": marked("temperature"),
    "vehicle": marked("vehicle"),
}
FIELDS: Final[Mapping[str, str]] = {
    "age_s": marked("age of the position"),
    "alt_m": marked("altitude"),
    "audio_dbfs": marked("sound level"),
    "available_bytes": marked("available"),
    "battery_pct": marked("battery"),
    "battery_temp_c": marked("battery temperature"),
    "bytes": marked("size"),
    "channels_ok": marked("channels that deliver"),
    "charging": marked("charging"),
    "conflict_ok": marked("free of conflict"),
    "coolant_c": marked("coolant"),
    "cpu_pct": marked("processor"),
    "cycle_s": marked("cycle"),
    "dimmed": marked("dimmed"),
    "door_open": marked("door open"),
    "failed": marked("lamps failed"),
    "files": marked("files"),
    "fix": marked("fix"),
    "free_bytes": marked("free"),
    "gap_ms": marked("gap"),
    "hdop": marked("dilution of precision"),
    "humidity_pct": marked("humidity"),
    "ignition": marked("ignition"),
    "lat": marked("latitude"),
    "load_1m": marked("load"),
    "locked_bytes": marked("locked"),
    "lon": marked("longitude"),
    "mains_v": marked("mains"),
    "mode": marked("mode"),
    "n_ok": marked("cameras that deliver"),
    "n_total": marked("cameras there should be"),
    "occupancy_pct": marked("occupancy"),
    "occupied": marked("occupied"),
    "odometer_km": marked("odometer"),
    "offset_ms": marked("offset of the clock"),
    "offset_s": marked("offset of the cycle"),
    "phase": marked("phase"),
    "plan": marked("plan"),
    "pre_event_s": marked("kept from before"),
    "recording": marked("recording"),
    "rpm": marked("engine speed"),
    "rssi_dbm": marked("signal strength"),
    "rx_bytes": marked("received"),
    "rx_errors": marked("receive errors"),
    "speed_mps": marked("speed"),
    "supply_v": marked("supply"),
    "temp_c": marked("temperature"),
    "tx_bytes": marked("sent"),
    "tx_errors": marked("send errors"),
    "unc_ms": marked("uncertainty of the clock"),
    "used_pct": marked("used"),
    "volume_vph": marked("vehicles"),
    "write_errors": marked("write errors"),
}
"""A field that two streams share means the same in both, but for the unit's sake."""


def yes_no(text: Texts) -> Words:
    """Of 0 and 1."""
    return (Word(0, text("no")), Word(1, text("yes")))


def modes(text: Texts) -> Words:
    """Of what a signal controller does: ``signal.mode``."""
    return tuple(
        Word(value, text(name))
        for value, name in enumerate(
            (marked("off"), marked("flash"), marked("fixed time"), marked("actuated"), marked("manual"))
        )
    )


def fixes(text: Texts) -> Words:
    """Of how a position was found: ``gnss.fix``."""
    return (Word(0, text("none")), Word(2, text("without height")), Word(3, text("with height")))

"""Faults of a site, seeded many at once, until each is told as an alert; then mended, until each alert clears."""

import asyncio
import gc
import random
import subprocess
import sys
from typing import Any, Final, cast

from broker_config import limits
from broker_config.ids import DeviceId
from broker_config.manifest import Segment
from broker_config.telemetry import Clock
from fleet_server.access import ca
from fleet_server.adapters import mqtt
from fleet_server.cli.server import Json
from tests.faults.programs import ROOT
from tests.fleet_server.evidence.upload_rig import File, Identity, manifest_of
from tests.servers import HOST
from tests.system.drill import DISK_BYTES, GIB, QUARANTINE_BYTES, SERIES_MAX, Drill, Of
from tests.system.played import SET_CLOCK, Played
from tests.uploading import UploadingDevice

MINUTES: Final = 60
HOURS: Final = 3_600
UPLOAD_S_MAX: Final = 60.0
OFF: Final = Clock("ntp", -61_000, 10)
CPU: Final = {"cpu_pct": 5.0, "load_1m": 0.1}
FILLED_BYTES: Final = 2 * GIB
"""Of the server's disk, at each step."""
SHORT_BYTES: Final = 4 * GIB
POISONS: Final = 7
IDLE: Final = 40
"""Boards that are only registered: their series are more than there is room for."""

LASTS_A_DAY: Final = {Of("gap-unexplained", "gap-1"), Of("interview-gap", "room-1")}
SHIFT: Final = {
    Of("space-short", "cam-1"),
    Of("battery-short", "cam-1"),
    Of("clock-off", "cam-1"),
    Of("device-silent", "silent-1"),
    Of("recording-gap", "room-1"),
    Of("not-in-effect", "set-1"),
    Of("second-copy"),
    Of("quarantine-filling"),
    Of("authority-ends"),
    Of("releases-end"),
    Of("releases-stale"),
    Of("series-budget"),
    Of("disk-short"),
    Of("evidence-space"),
}
RESTORED: Final = {Of("gap-lost", "lost-1"), Of("sink-behind")}
OVERDUE: Final = {Of("upload-overdue", "cam-3")}
DAYS: Final = {Of("scrub-old"), Of("device-away", "cam-4")}
DAMAGED: Final = {Of("evidence-damaged")}
REFUSING: Final = {Of("store-refusing")}
LATE: Final = {Of("receipts-late")}
ALTERED: Final = {Of("custody-log")}
TOLD: Final = SHIFT | LASTS_A_DAY | RESTORED | OVERDUE | DAYS | DAMAGED | REFUSING | LATE | ALTERED


def story(drill: Drill) -> None:
    """All of it. Raises TimeoutError, AssertionError: an alert did not open, or did not clear."""
    drill.put("/v1/org-nodes/hq", {"kind": "centre", "name": "HQ"})
    rows = "".join(f"idle-{at},host,hq\n" for at in range(IDLE))
    content = f"device,device_class,node\n{rows}".encode()
    drill.fleet.server.send("POST", "/v1/imports/devices", content=content, headers={"Content-Type": "text/csv"})
    silent = a_shift(drill)
    a_store_that_is_put_back(drill)
    silent.cadences_s = {}
    days(drill)
    a_store_that_is_locked(drill)
    a_log_that_is_altered(drill)


def a_shift(drill: Drill) -> Played:
    """What goes wrong within hours, and is mended but for what is of the last day; who was silent."""
    camera = drill.play("cam-1", "body_camera")  # it will be full and empty before its shift ends
    power, storage = {"battery_pct": 90.0, "charging": 0.0}, {"free_bytes": 60e9}
    camera.readings = {"power": power, "storage": storage}
    camera.clock = OFF
    camera.tell()
    out: Json = {"officer": "P1", "override": "a drill"}
    drill.fleet.server.send("POST", "/v1/devices/cam-1/check-out", json=out)

    def used_up() -> None:
        power["battery_pct"] = max(0.0, power["battery_pct"] - 4)
        storage["free_bytes"] = max(0.0, storage["free_bytes"] - 4e9)
        if drill.disk_bytes > SHORT_BYTES:
            drill.resize(drill.disk_bytes - FILLED_BYTES)

    silent = drill.play("silent-1", "host")
    silent.cadences_s = {"cpu": 10}
    silent.say("cpu", CPU)
    silent.bear()
    with_a_hole(drill.play("gap-1", "host"))
    room = drill.play("room-1", "interrogation_room")
    room.happens("session.start", ago_s=900, reference="A-1")
    room.happens("session.stop", ago_s=300, reference="A-1")
    room.readings = {"av": {"channels_ok": 2.0, "audio_dbfs": -20.0, "gap_ms": 1_500.0}}
    room.bear()
    poisoner = drill.play("poisoner", "host")
    for seq in range(1, POISONS + 1):
        poisoner.poison(b"poison " * 80, seq)
    settled = drill.play("set-1", "host")
    settled.report({"keep_alive_s": 30})
    desired = patched(drill, "set-1", {"keep_alive_s": 45})
    drill.replica.read_only(True)
    uploads(drill, recorded(drill, DeviceId("cam-2"), "cam_00001.mp4"))
    drill.each_step = [used_up]
    drill.open(SHIFT | LASTS_A_DAY, step_s=20 * MINUTES)

    drill.each_step = []
    power["charging"], storage["free_bytes"] = 1.0, 60e9
    camera.clock = SET_CLOCK
    silent.readings = {"cpu": CPU}
    room.readings["av"]["gap_ms"] = 0.0
    settled.report({"keep_alive_s": 45}, desired=desired)
    drill.replica.read_only(False)
    drill.resize(DISK_BYTES)
    drill.sign_releases()
    return silent


def with_a_hole(device: Played) -> None:
    """It was silent for ten minutes, and does not say why."""
    device.say("cpu", CPU, ago_s=600)
    device.cadences_s = {"cpu": 10}
    device.bear()
    device.say("cpu", CPU)
    device.cadences_s = {}
    device.bear()


def a_store_that_is_put_back(drill: Drill) -> None:
    """It has not what was receipted since. The server comes back with another authority and more room, and then
    without its time-series server.
    """
    lost = drill.play("lost-1", "host")
    lost.say("cpu", CPU)
    lost.receipted("cpu")
    told("roll-ca", "--dir", str(drill.fleet.directory))
    with drill.put_back():
        lost.say("cpu", CPU)
        lost.say("cpu", CPU)
        lost.receipted("cpu")
        lost.trim("cpu")
        drill.restart(
            (f"series_max = {SERIES_MAX}", f"series_max = {100 * SERIES_MAX}"),
            (f"quarantine_bytes_max = {QUARANTINE_BYTES}", f"quarantine_bytes_max = {100 * QUARANTINE_BYTES}"),
        )
    drill.influx.kill()
    drill.open(RESTORED, step_s=20 * MINUTES)
    drill.influx.start()
    lost.again("cpu", 2, 3)
    drill.clear(SHIFT | RESTORED, step_s=20 * MINUTES)


def days(drill: Drill) -> None:
    """What takes days to be told, and what is over a day later."""
    drill.fleet.server.send("POST", "/v1/evidence/scrubs")
    owed = drill.play("cam-3", "body_camera")
    owed.happens("recording.opened", recording="r-1", file_class="recordings", trigger="officer")
    whole = Segment("r-1", 1, "0" * 64, last=True)
    file = recorded(drill, DeviceId("cam-3"), "cam_00002.mp4", segment=whole)
    away = drill.play("cam-4", "body_camera")
    away.vanish()
    drill.open(OVERDUE, step_s=13 * HOURS)
    owed.vanish()  # who uploads is another connection of its
    uploads(drill, file)
    owed.connect()
    drill.clear(OVERDUE | LASTS_A_DAY, step_s=20 * MINUTES)
    drill.open(DAYS, step_s=23 * HOURS)
    away.connect()
    kept = next(path for path in (drill.state / "evidence/sha256").rglob("*") if path.is_file())
    data = kept.read_bytes()
    kept.chmod(0o600)
    kept.write_bytes(data[:-1] + b"x")
    drill.fleet.server.send("POST", "/v1/evidence/scrubs")
    drill.open(DAMAGED, step_s=20 * MINUTES)
    kept.write_bytes(data)
    drill.fleet.server.send("POST", "/v1/evidence/scrubs")
    drill.clear(DAYS | DAMAGED, step_s=20 * MINUTES)


def a_store_that_is_locked(drill: Drill) -> None:
    """Somebody else holds its lock, and then lets go of it for moments."""
    camera = next(each for each in drill.played if each.device == "cam-1")
    with drill.locked() as lock:
        camera.tell()
        drill.open(REFUSING, step_s=20)

        def moments() -> None:
            lock.rollback()
            camera.receipted("power")
            lock.execute("BEGIN IMMEDIATE")

        drill.each_step = [moments]
        drill.open(LATE, step_s=40)
    drill.each_step = []
    drill.clear(REFUSING | LATE, step_s=65)


def a_log_that_is_altered(drill: Drill) -> None:
    """Below the server; and another is begun."""
    drill.altered_below()
    drill.open(ALTERED, step_s=MINUTES)
    told("begin-audit-log", "--config", str(drill.config), "--why", "a drill")
    drill.clear(ALTERED, step_s=MINUTES)


def recorded(drill: Drill, device: DeviceId, name: str, segment: Segment | None = None) -> File:
    """A file that *device* signed."""
    own = drill.credentials(device)
    issued = ca.Issued(own.certificate.read_bytes(), own.key.read_bytes())
    root = (drill.fleet.directory / "ca/device-root.crt").read_bytes()
    data = random.Random(name).randbytes(limits.CHUNK_BYTES_MIN)
    said = manifest_of(
        data, device, chunk_bytes=limits.CHUNK_BYTES_MIN, at_ms=drill.now_ms(), name=name, segment=segment
    )
    return File(data, said, Identity.of(issued, device, root))


def uploads(drill: Drill, file: File) -> None:
    """Until it is receipted."""
    device = file.identity.device
    own = drill.credentials(device)
    security = mqtt.security(own.ca, own.certificate, own.key)
    link = mqtt.LinkSettings(HOST, drill.fleet.device_port, device, 30, security, session_expiry_s=0)
    asyncio.run(asyncio.wait_for(UploadingDevice(link, device, [file]).run(), UPLOAD_S_MAX))
    gc.collect()  # see test_custody


def patched(drill: Drill, device: str, settings: Json) -> int:
    """What is desired of it from now on: the version."""
    headers = {"If-Match": '"0"', "Content-Type": "application/merge-patch+json"}
    made = drill.fleet.server.send("PATCH", f"/v1/twins/{device}", json=settings, headers=headers)
    return int(cast("dict[str, Any]", made)["twin"]["desired"]["version"])


def told(*words: str) -> None:
    """What an operator says to ``fleet-server``."""
    command = [sys.executable, "-m", "fleet_server", *words]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)

"""The rig of the telemetry runs, with files: an agent with folders, a server that keeps them, and the signer.

The link is slow enough that a file is still on its way when something dies.
"""

import hashlib
import os
import random
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker_config.ids import server_client_id
from fleet_server.access import ca
from fleet_server.adapters import mqtt
from tests.disks import Disk
from tests.faults.api import ApiDownError
from tests.faults.programs import Program, why_no_disks
from tests.faults.rig import DEVICE, Rig, RigSettings
from tests.faults.tap import TAP_SITE
from tests.faults.upload_tap import UploadTap
from tests.faults.witness import DEVICE_CLASS
from tests.servers import HOST

FILES_CLASS: Final = "in_car_terminal"
LINK_BYTES_S: Final = 6e6
DISK_BYTES: Final = 96 * 1024 * 1024
DISK_BYTES_A_KILL: Final = 2 * 1024 * 1024
OUTBOX: Final = "uploads.db"
PIECE_BYTES: Final = 1024 * 1024
FAIL_FLAG: Final = "FIELDFLEET_TEST_DISK_FAILS"
"""Names a file: while it is there, the disk of a server that plays along fails."""


@dataclass(frozen=True)
class Made:
    """A file as the device's recorder wrote it."""

    folder: str
    name: str
    sha256: str
    size: int


SETTINGS: Final = RigSettings(link_bytes_s=LINK_BYTES_S, server_module="tests.faults.failing_disk")


class UploadRig(Rig):
    """See the module. ``made``: every file that was ever put into a folder."""

    def __init__(
        self, directory: Path, settings: RigSettings = SETTINGS, *, disks: bool = False, seed: int = 0, kills: int = 0
    ) -> None:
        super().__init__(directory, settings)
        self.made: list[Made] = []
        self.evidence_directory = directory / "evidence"
        self.fail_file = directory / "fail"
        self.server.environment = {FAIL_FLAG: str(self.fail_file)}
        self.signer = Program(
            "signer", [sys.executable, "-m", "fleet_server.signer", str(self.server_file)], directory / "signer.log"
        )
        self.evidence_disk: Disk | None = None
        self._with_disk = disks and why_no_disks() is None
        self._rng = random.Random(seed)
        self.evidence_disk_bytes = DISK_BYTES + kills * DISK_BYTES_A_KILL
        self._segments: dict[str, int] = {}

    def _begin(self) -> None:
        if self._with_disk:
            self.evidence_disk = Disk(self.evidence_directory, self.evidence_disk_bytes)
            self._exit.callback(self.evidence_disk.close)
        super()._begin()
        issued = ca.issue_server(self.broker.server_ca, TAP_SITE, now=datetime.now(UTC))
        paths = self.broker.credentials("_upload_tap", issued)
        self.upload_tap = UploadTap(
            mqtt.LinkSettings(
                host=HOST,
                port=self.broker.server_port,
                client_id=server_client_id(TAP_SITE, work="evidence"),
                keep_alive_s=30,
                security=mqtt.security(paths.ca, paths.certificate, paths.key),
                session_expiry_s=0,
            ),
            DEVICE,
        )
        self.background.keep(self.upload_tap.run())
        self.signer.start()
        self._exit.callback(self.signer.kill)

    # configuration

    def configure_server(self, **changes: object) -> None:
        super().configure_server(**changes)
        site = self.site_directory / "ca"
        beside = self.server_file.parent
        chain = (site / "device-ca.crt").read_bytes() + (site / "device-root.crt").read_bytes()
        (beside / "device-ca.crt").write_bytes(chain)
        shutil.copy(site / "device-ca.key", beside / "device-ca.key")
        (beside / "device-ca.key").chmod(0o600)
        with self.server_file.open("a", encoding="utf-8") as file:
            file.write(
                f"""
[device_ca]
cert_file = "device-ca.crt"
key_file = "device-ca.key"
crl_file = "device-ca.crl"

[evidence]
directory = "{self.evidence_directory}"
"""
            )

    def configure_agent(self, **changes: object) -> None:
        super().configure_agent(**changes)
        for path in (self.agent_file, self.agent_directory / "profile.toml"):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(f'device_class = "{DEVICE_CLASS}"', f'device_class = "{FILES_CLASS}"'))
        with self.agent_file.open("a", encoding="utf-8") as file:
            file.write(
                """
[uploads]
look_s = 0.1
reserve_bytes = 0
abnormal_s = 3600

[uploads.folders.recordings]
[uploads.folders.snapshots]
[uploads.folders.logs]
"""
            )

    # files

    def folder(self, file_class: str) -> Path:
        """Where the recorder writes."""
        path = self.agent_state / "files" / file_class
        path.mkdir(parents=True, exist_ok=True)
        return path

    def make(self, size: int, *, file_class: str = "snapshots") -> Made:
        """A file as a recorder makes one: beside, and renamed."""
        count = len(self.made)
        name = f"{file_class[0]}{count:06d}.{'jpg' if file_class == 'snapshots' else 'log'}"
        return self._write(file_class, name, size)

    def record(self, recording: str, size: int) -> Made:
        """The next segment of a recording."""
        number = self._segments[recording] = self._segments.get(recording, 0) + 1
        if number == 1:
            (self.folder("recordings") / f"{recording}.open").write_text('{"trigger": "ignition"}', encoding="utf-8")
        return self._write("recordings", f"{recording}_{number:05d}.mp4", size)

    def close_recordings(self) -> None:
        """Nothing more comes of them."""
        for recording in self._segments:
            (self.folder("recordings") / f"{recording}.close").write_text('{"reason": "done"}', encoding="utf-8")

    def _write(self, file_class: str, name: str, size: int) -> Made:
        folder, digest = self.folder(file_class), hashlib.sha256()
        partial = folder / f".{name}.part"
        with partial.open("wb") as file:
            for at in range(0, size, PIECE_BYTES):
                data = self._rng.randbytes(min(PIECE_BYTES, size - at))
                digest.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / name)
        made = Made(file_class, name, digest.hexdigest(), size)
        self.made.append(made)
        return made

    # what is known of them

    def receipted(self) -> dict[str, str]:
        """What the device has a receipt for, as its outbox says: name -> sha256."""
        path = self.agent_state / OUTBOX
        if not path.exists():
            return {}
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT name, sha256 FROM upload WHERE storage_class = 'logged' AND receipt IS NOT NULL"
            )
            return dict(rows.fetchall())

    def uploaded(self) -> bool:
        """Whether every file that was made is receipted."""
        try:
            return len(self.receipted()) >= len(self.made)
        except sqlite3.Error:
            return False

    def pieces(self) -> dict[str, str]:
        """What custody has: name -> sha256."""
        return {str(row["name"]): str(row["sha256"]) for row in self.api.pages("/v1/evidence/pieces", "pieces")}

    def entered(self) -> bool:
        """Whether custody answers, and has as many pieces as there are files."""
        try:
            return len(self.pieces()) >= len(self.made)
        except ApiDownError:
            return False

    def stored(self, sha256: str) -> Path:
        """Where the store has it, if it has."""
        return self.evidence_directory / "sha256" / sha256[:2] / sha256[2:4] / sha256

    def incoming(self) -> list[Path]:
        """What is on its way, at the server."""
        return sorted((self.evidence_directory / "incoming").glob("*.part"))

    # faults

    def corrupt(self, rng: random.Random) -> int:
        """Change bytes of what came, under the server's feet; return of how many files."""
        spoiled = 0
        for path in self.incoming():
            try:
                with path.open("r+b") as file:
                    size = path.stat().st_size
                    for _ in range(8):
                        at = rng.randrange(max(1, size))
                        file.seek(at)
                        was = file.read(1)
                        file.seek(at)
                        file.write(bytes([was[0] ^ 0x55]) if was else b"")
            except FileNotFoundError:
                continue
            spoiled += 1
        return spoiled

    def fail_disk(self, on: bool) -> None:
        """Whether writing and syncing give EIO."""
        if on:
            self.fail_file.touch()
        else:
            self.fail_file.unlink(missing_ok=True)


def settings_of(module: str) -> RigSettings:
    """With another server."""
    return replace(SETTINGS, server_module=module)

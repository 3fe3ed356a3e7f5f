"""The whole way of a recording: real video, an agent that is killed, the real server and signer; and deletion."""

import base64
import hashlib
import json
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.faults.programs import ROOT, Program
from tests.faults.rig import Rig, RigSettings
from tests.faults.witness import DEVICE_CLASS
from tests.system.test_custody import asked, fieldfleet

pytestmark = pytest.mark.server("mosquitto")

SERVER = """
[device_ca]
cert_file = "../broker/device-ca.crt"
key_file = "../ca/device-ca.key"
crl_file = "../broker/device-ca.crl"

[evidence]
directory = "{evidence}"
"""
AGENT = """
[uploads]
look_s = 0.2
reserve_bytes = {reserve}

[uploads.folders.recordings]
"""


class Recording(Rig):
    """A rig whose agent uploads and whose server takes it."""

    reserve = 0

    def configure_agent(self, **changes: object) -> None:
        super().configure_agent(**changes)
        self.agent_file.write_text(self.agent_file.read_text() + AGENT.format(reserve=self.reserve))
        for path in (self.agent_file, self.agent_directory / "profile.toml"):
            path.write_text(path.read_text().replace(f'"{DEVICE_CLASS}"', '"interrogation_room"'))

    def configure_server(self, **changes: object) -> None:
        super().configure_server(**changes)
        self.server_file.write_text(self.server_file.read_text() + SERVER.format(evidence=self.evidence))

    @property
    def evidence(self) -> Path:
        return self.directory / "evidence"

    @property
    def folder(self) -> Path:
        return self.agent_state / "files" / "recordings"

    def record(self, seconds: float) -> None:
        command = [sys.executable, "-m", "firmware_bridge.peripherals.recorder", "--folder", str(self.folder)]
        command += ["--seconds", str(seconds), "--segment-s", "1"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    def kept(self) -> list[tuple[str, str, str | None]]:
        """Content, what became of it, and what the server vouches for."""
        try:
            with sqlite3.connect(self.agent_state / "uploads.db") as db:
                return db.execute("SELECT sha256, kept, storage_class FROM upload").fetchall()
        except sqlite3.OperationalError:
            return []

    def all_logged(self, count: int) -> bool:
        kept = self.kept()
        return len(kept) == count and all(each[1:] == ("receipted", "logged") for each in kept)


@pytest.mark.server("ffmpeg")
def test_a_recording_reaches_the_store_and_its_receipt_the_device(tmp_path: Path) -> None:
    with Recording(tmp_path, RigSettings(server_disk_bytes=0)) as rig:
        signer = Program(
            "signer",
            [sys.executable, "-m", "fleet_server", "signer", "--config", str(rig.server_file)],
            tmp_path / "signer.log",
        )
        signer.start()
        rig._exit.callback(signer.kill)
        rig.run()
        rig.record(4)
        rig.agent.kill()
        rig.agent.start()
        rig.wait(lambda: rig.all_logged(4), "every segment is receipted", rig.agent, rig.server, signer)
        found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in rig.folder.iterdir()}
        assert {sha256 for sha256, _, _ in rig.kept()} == found
        for sha256 in found:
            (stored,) = rig.evidence.rglob(sha256)
            assert hashlib.sha256(stored.read_bytes()).hexdigest() == sha256
        listed = fieldfleet(rig, "evidence", "list")
        assert listed.returncode == 0, listed.stderr
        check_bundle(rig, tmp_path)
        sealed = list(rig.api.pages("/v1/devices/car-7/events", "events"))
        told = [each["data"] for each in sealed if each["kind"] == "file.sealed"]
        assert {each["sha256"] for each in told} == found  # type: ignore[index]
        # a disk that is short: what the log has goes, and only that
        rig.agent.stop()
        rig.reserve = 1 << 60
        rig.configure_agent()
        rig.agent.start()
        rig.wait(lambda: not list(rig.folder.glob("*.mp4")), "what is receipted is deleted", rig.agent)
        rig.wait((rig.folder / "STOP").exists, "the recorder is told to stop", rig.agent)
        assert rig.kept() == []
        assert "Traceback" not in rig.server.log() + rig.agent.log()


def check_bundle(rig: Recording, tmp_path: Path) -> None:
    """Who has nothing but the bundle, verify.py and the keys finds that all of it holds; and none of it without."""
    made = json.loads(
        fieldfleet(rig, "tokens", "make", "eve", "--grant", "evidence_reviewer@everywhere", "--json").stdout
    )
    reviewer = tmp_path / "reviewer"
    reviewer.write_text(made["secret"])
    watching = tmp_path / "witness.json"
    log_key = rig.server_file.parent / "audit.pub"
    signed = fieldfleet(rig, "audit", "export", str(tmp_path / "audit.ndjson"))  # a checkpoint of now
    assert signed.returncode == 0, signed.stderr
    seen = fieldfleet(rig, "audit", "witness", str(watching), "--key", str(log_key))
    assert seen.returncode == 0, seen.stderr
    (tmp_path / "witness.pub").write_text(json.loads(watching.read_text())["key"])
    to = tmp_path / "case" / "recording.zip"
    to.parent.mkdir()
    done = asked(rig, reviewer, "export", "--device", "car-7", "--witnessed", str(watching), "--to", str(to))
    assert done.returncode == 0, done.stderr
    root = str(rig.server_file.parent / "../broker/device-ca.crt")
    keys = ["--root", root, "--log-key", str(log_key), "--witness", str(tmp_path / "witness.pub")]
    command = [sys.executable, "-I", str(to.parent / "verify.py"), str(to)]
    verdict = subprocess.run([*command, *keys], capture_output=True, text=True, timeout=60, check=False)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert "segments 1 to 4" in verdict.stdout
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 3
    with zipfile.ZipFile(to) as bundle:
        said = next(bundle.read(name) for name in bundle.namelist() if name.endswith("manifest.dsse.json"))
    assert b'"head":"' in base64.b64decode(json.loads(said)["payload"]), "the device signed its journal, too"

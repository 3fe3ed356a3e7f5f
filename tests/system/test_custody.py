"""The server as it runs: a file comes over Mosquitto, is receipted with its place in the log, looked at, held,
damaged and found; timestamps come from an authority outside.
"""

import asyncio
import gc
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker_config import limits
from broker_config.ids import DeviceId
from fleet_server.access import ca
from fleet_server.adapters.mqtt import LinkSettings, security
from tests.faults.programs import Program
from tests.faults.rig import Rig
from tests.fleet_server.evidence.upload_rig import File, Identity, manifest_of
from tests.servers import HOST
from tests.tsa import tsa
from tests.uploading import UploadingDevice

CAMERA = DeviceId("cam-7")
UPLOAD_S_MAX = 60

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.server("openssl")]
TABLE = """
[device_ca]
cert_file = "../broker/device-ca.crt"
key_file = "../ca/device-ca.key"
crl_file = "../broker/device-ca.crl"

[evidence]
directory = "{evidence}"
replica = "{replica}"
tsa_url = "{tsa}"
tsa_ca_file = "{root}"
"""


def fieldfleet(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet_server.cli", *arguments, "--site", str(rig.site_directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_server_with_evidence_scrubs_stamps_and_stops(tmp_path: Path) -> None:
    (tmp_path / "tsa").mkdir()
    with tsa(tmp_path / "tsa") as authority, Rig(tmp_path / "rig") as rig:
        evidence = tmp_path / "evidence"
        table = TABLE.format(evidence=evidence, replica=tmp_path / "replica", tsa=authority.url, root=authority.root)
        rig.server_file.write_text(rig.server_file.read_text() + table)
        rig.start_server()
        sound = fieldfleet(rig, "evidence", "scrub")
        assert sound.returncode == 0, sound.stderr
        stranger = "ab" * 32
        (evidence / "sha256" / stranger).write_bytes(b"nobody's")
        found = fieldfleet(rig, "evidence", "scrub")
        assert (found.returncode, f"unexpected {stranger} store" in found.stdout) == (1, True)
        assert "evidence.damaged" in [each["kind"] for each in rig.api.pages("/v1/happenings", "happenings")]
        assert b"fieldfleet_custody_scrub_found 1.0" in rig.api.bytes_of("/metrics")
        audited = fieldfleet(rig, "audit", "list", "--action", "evidence.scrubbed").stdout
        assert audited.count("evidence.scrubbed") == 2
        rig.wait(lambda: authority.asked > 0, "a checkpoint is stamped")
        assert rig.server.stop() == 0
        assert "Traceback" not in rig.server.log()


def test_a_file_from_the_device_to_its_history(tmp_path: Path) -> None:
    with Rig(tmp_path / "rig") as rig:
        evidence = tmp_path / "evidence"
        table = TABLE.format(evidence=evidence, replica=tmp_path / "replica", tsa="", root="")
        table = table.replace('tsa_ca_file = ""\n', "")
        rig.server_file.write_text(rig.server_file.read_text() + table)
        signer = Program(
            "signer",
            [sys.executable, "-m", "fleet_server", "signer", "--config", str(rig.server_file)],
            tmp_path / "signer.log",
        )
        signer.start()
        try:
            rig.start_server()
            file = sent_by(rig, size=3 * limits.CHUNK_BYTES_MIN)
            paths = rig.device_credentials(CAMERA)
            context = security(paths.ca, paths.certificate, paths.key)
            settings = LinkSettings(HOST, rig.broker.device_port, CAMERA, 30, context)
            device = UploadingDevice(settings, CAMERA, [file])
            asyncio.run(asyncio.wait_for(device.run(), UPLOAD_S_MAX))
            gc.collect()  # what its link left, here and not while something is compiled: Python 3.11 fails at that
            receipt = device.receipts[file.upload]
            reviewer = tmp_path / "reviewer"
            made = json.loads(
                fieldfleet(rig, "tokens", "make", "rev", "--grant", "evidence_reviewer@everywhere", "--json").stdout
            )
            reviewer.write_text(made["secret"])
            shown = json.loads(asked(rig, reviewer, "show", file.upload, "--json").stdout)
            assert (shown["log"], shown["entry"]) == (receipt.log, receipt.number), "where the receipt says"
            assert shown["sha256"] == receipt.sha256
            got = asked(rig, reviewer, "get", file.upload, "--to", str(tmp_path / "video.mp4"))
            assert got.returncode == 0, got.stderr
            assert (tmp_path / "video.mp4").read_bytes() == file.data
            held = asked(rig, reviewer, "hold", file.upload, "--hold", "case-7", "--reason", "order 12")
            assert held.returncode == 0, held.stderr
            (kept,) = (path for path in (evidence / "sha256").rglob("*") if path.is_file())
            kept.chmod(0o600)
            kept.write_bytes(file.data[:-1] + b"x")
            found = fieldfleet(rig, "evidence", "scrub")
            assert (found.returncode, f"altered {file.upload} store" in found.stdout) == (1, True)
            refused = asked(rig, reviewer, "get", file.upload, "--to", str(tmp_path / "other.mp4"))
            assert (refused.returncode, "the device signed" in refused.stderr) == (1, True)
            history = json.loads(asked(rig, reviewer, "history", file.upload, "--json").stdout)["events"]
            told = [each["action"].partition(".")[2] for each in history]
            assert told == ["received", "verified", "viewed", "held", "damaged", "viewed"]
            exported = tmp_path / "audit.ndjson"
            assert fieldfleet(rig, "audit", "export", str(exported)).returncode == 0
            key = str(rig.server_file.parent / "audit.pub")
            command = [sys.executable, "-m", "fleet_server.cli", "audit", "verify", str(exported), "--key", key]
            assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        finally:
            signer.stop()


def asked(rig: Rig, token_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    server = ("--url", f"http://{HOST}:{rig.site.api_port}", "--token-file", str(token_file))
    command = [sys.executable, "-m", "fleet_server.cli", "evidence", *arguments, *server]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def sent_by(rig: Rig, size: int) -> File:
    """A file that the camera signed."""
    paths = rig.device_credentials(CAMERA)
    issued = ca.Issued(paths.certificate.read_bytes(), paths.key.read_bytes())
    identity = Identity.of(issued, CAMERA, rig.broker.device_ca.certificate_pem)
    data = random.Random(7).randbytes(size)
    said = manifest_of(data, CAMERA, chunk_bytes=limits.CHUNK_BYTES_MIN, at_ms=time.time_ns() // 1_000_000)
    return File(data, said, identity)

"""The server as it runs keeps what lies in its store under its eyes: started, asked, stopped by commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.rig import Rig
from tests.tsa import tsa

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

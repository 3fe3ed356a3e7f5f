"""A bundle is exported by a command, checked by one, and checked by the file that lies beside it."""

import random
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from fleet_server.access import witness
from fleet_server.access.notes import checkpoint_of
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.cli.__main__ import app
from fleet_server.evidence import verify
from tests.fleet_server.access.drafts import SIGNER
from tests.fleet_server.evidence.bundles import WITNESS, Camera, Site
from tests.fleet_server.fleet import NOW, Fleet

RUNNER = CliRunner()


class Desk:
    """Somebody who reviews evidence, a recording that has arrived, and the keys that a stranger has."""

    def __init__(self, fleet: Fleet, site: Path, directory: Path) -> None:
        self.directory = directory
        self.custody = fleet.custody
        self._url = f"http://127.0.0.1:{(site / 'site.toml').read_text().split()[-1]}"
        grants = [NodeGrant(Role.EVIDENCE_REVIEWER, None)]
        made = fleet.people.make_token("eve", "eve", grants, giver=ROOT, expires_ms=None, now_ms=NOW)
        self._token = directory / "token"
        self._token.write_text(made.secret)
        devices = Site()
        camera = Camera(devices, "cam-17")
        for each in camera.recorded(fleet.custody.content, "r-17", 2, size=20_000, rng=random.Random(1)):
            fleet.custody.pieces.verified(each)
            self.piece = each.upload
        fleet.custody.journals.held[camera.device, camera.life] = camera.batches
        self.keys = {
            "--root": devices.root.certificate_pem.decode(),
            "--log-key": SIGNER.verifier.text(),
            "--witness": WITNESS.verifier.text(),
        }

    def export(self, *arguments: str) -> Result:
        server = ("--url", self._url, "--token-file", str(self._token))
        return RUNNER.invoke(app, ["evidence", "export", *arguments, *server])

    def options(self, *names: str) -> list[str]:
        given: list[str] = []
        for name in names:
            path = self.directory / name.strip("-")
            path.write_text(self.keys[name] + "\n")
            given += [name, str(path)]
        return given

    def witnessed(self) -> Path:
        """The file of a witness that saw the log as it is now."""
        note = self.custody.auditor.sign()
        assert note is not None
        seen = {checkpoint_of(note).origin: WITNESS.cosign(note, at_s=NOW // 1000)}
        path = self.directory / "witness.json"
        path.write_bytes(msgspec.json.encode(witness.State(SIGNER.verifier.text(), WITNESS.verifier.text(), seen)))
        return path


@pytest.fixture(scope="module")
def desk(served: tuple[Fleet, Path], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    fleet, site = served
    return Desk(fleet, site, tmp_path_factory.mktemp("desk"))


def test_what_is_exported_is_checked_here_and_by_the_file_beside_it(desk: Desk, tmp_path: Path) -> None:
    to = tmp_path / "case-7.zip"
    done = desk.export("--recording", "r-17", "--witnessed", str(desk.witnessed()), "--to", str(to))
    assert done.exit_code == 0, done.output
    assert f"{to}: 2 files, {to.stat().st_size} bytes" in done.stdout
    options = desk.options("--root", "--log-key", "--witness")
    here = RUNNER.invoke(app, ["evidence", "verify", str(to), *options])
    assert here.exit_code == 0, here.output
    assert "Recording r-17 of device cam-17" in here.stdout
    command = [sys.executable, "-I", str(tmp_path / "verify.py"), str(to), *options]
    beside = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (beside.returncode, beside.stdout) == (0, here.stdout)


def test_what_was_not_checked_is_another_exit_code_than_what_does_not_hold(desk: Desk, tmp_path: Path) -> None:
    to = tmp_path / "one.zip"
    assert desk.export(desk.piece, "--to", str(to)).exit_code == 0
    half = RUNNER.invoke(app, ["evidence", "verify", str(to)])
    assert half.exit_code == 1, "a segment by itself is no whole recording"
    to.unlink()
    assert desk.export("--recording", "r-17", "--to", str(to)).exit_code == 0
    assert RUNNER.invoke(app, ["evidence", "verify", str(to), *desk.options("--root")]).exit_code == 3
    with zipfile.ZipFile(to) as file:
        at = file.getinfo(f"pieces/{desk.piece}/original").header_offset + 500
    data = bytearray(to.read_bytes())
    data[at] ^= 1
    to.write_bytes(data)
    altered = RUNNER.invoke(app, ["evidence", "verify", str(to), *desk.options("--root")])
    assert altered.exit_code == 1
    assert [line for line in altered.stdout.splitlines() if line.split()[:2] == ["FAIL", "unaltered"]]


def test_a_file_that_is_there_is_not_written_over_and_nothing_is_asked(desk: Desk, tmp_path: Path) -> None:
    to = tmp_path / "here.zip"
    to.write_text("mine")
    before = desk.custody.told(desk.piece)
    done = desk.export(desk.piece, "--to", str(to))
    assert done.exit_code == 2
    assert "there already" in done.stderr
    assert (to.read_text(), desk.custody.told(desk.piece)) == ("mine", before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "expected pieces"), (("--recording", "no-such"), "nothing to export"), (("0" * 32,), "there is no piece")],
)
def test_what_cannot_be_exported_leaves_no_file(
    desk: Desk, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = desk.export(*arguments, "--to", str(tmp_path / "x.zip"))
    assert done.exit_code != 0
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_verifier_is_given_out_as_it_is() -> None:
    told = RUNNER.invoke(app, ["evidence", "verifier"])
    assert told.exit_code == 0
    assert told.stdout == Path(verify.__file__).read_text()

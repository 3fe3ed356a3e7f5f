"""The second person's three commands: a key of their own, known to the site, and a signature after a look."""

import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from broker_config import signing
from broker_config.signing import ED25519, PAYLOAD_TYPE, Claims, Command, Envelope, Kind, Signature
from fleet_server.access.countersigning import read_public
from fleet_server.adapters import site_directory
from fleet_server.adapters.signing_key import FileKey
from fleet_server.cli import countersign_commands
from fleet_server.site import SIGNERS_FILE
from tests.orders import CAR, ID

RUNNER = CliRunner()
APP = typer.Typer()
countersign_commands.add_commands(APP)
PASSPHRASE = "correct horse battery"


def run(*arguments: str | Path, says: str | None = None) -> Result:
    return RUNNER.invoke(APP, [str(each) for each in arguments], input=says)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("signed") / "site"
    site_directory.create(
        directory, hosts=("localhost",), device_port=1, server_port=2, api_port=3, broker_user=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def key(site: Path) -> Path:
    """A person's, which the site knows."""
    path = site.parent / "a-meyer.key"
    made = run("make-signer-key", path, says=f"{PASSPHRASE}\n{PASSPHRASE}\n")
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSPHRASE not in made.output
    public = made.stdout.strip()
    assert FileKey(path.read_bytes(), PASSPHRASE.encode()).public == read_public(public)
    added = run("add-signer", public, "--dir", site)
    assert added.exit_code == 0, added.output
    assert run("add-signer", public, "--dir", site).exit_code == 2
    return path


def order(site: Path, path: Path, *, lifetime_ms: int = 600_000, value: str = "x") -> Path:
    """As the site's own signer would sign it."""
    own = FileKey.read(site / "server" / "signing.key")
    roots = signing.decode_roots((site / SIGNERS_FILE).read_bytes())
    now_ms = time.time_ns() // 1_000_000
    body = msgspec.Raw(signing.encode(Command(1, ID, "recording.start", {"room": value})))
    claims = Claims(1, Kind.COMMAND, roots.site, CAR, now_ms, now_ms, now_ms + lifetime_ms, body)
    payload = signing.encode(claims)
    signature = own.sign(signing.pre_authentication(PAYLOAD_TYPE, payload))
    path.write_bytes(
        signing.encode(Envelope(payload, PAYLOAD_TYPE, (Signature(signing.key_id(ED25519, own.public), signature),)))
        + b"\n"
    )
    return path


def signing_of(path: Path, key: Path, site: Path, says: str) -> Result:
    return run("countersign", path, "--key", key, "--signers", site / SIGNERS_FILE, says=says)


def test_the_order_is_shown_whole_and_signed_by_both(site: Path, key: Path, tmp_path: Path) -> None:
    value = "a" * 500 + "\x1b[2J"
    done = signing_of(order(site, tmp_path / "order.json", value=value), key, site, f"y\n{PASSPHRASE}\n")
    assert done.exit_code == 0, done.output
    assert "recording.start" in done.stderr
    assert "a" * 500 + "\\x1b[2J" in done.stderr
    assert CAR in done.stderr
    signed = signing.decode_envelope(done.stdout.strip().encode())
    assert len(signed.signatures) == 2
    assert signed.payload == signing.decode_envelope((tmp_path / "order.json").read_bytes().strip()).payload
    again = tmp_path / "signed.json"
    again.write_text(done.stdout)
    refused = signing_of(again, key, site, f"y\n{PASSPHRASE}\n")
    assert (refused.exit_code, refused.stdout.strip()) == (1, "")
    assert "another person" in refused.stderr


def test_a_no_and_a_wrong_passphrase_sign_nothing(site: Path, key: Path, tmp_path: Path) -> None:
    path = order(site, tmp_path / "order.json")
    said_no = signing_of(path, key, site, "n\n")
    assert (said_no.exit_code, said_no.stdout) == (1, "")
    wrong = signing_of(path, key, site, "y\nwrong horse battery\n")
    assert (wrong.exit_code, wrong.stdout.strip()) == (1, "")
    assert "passphrase" in wrong.stderr
    assert "wrong horse" not in wrong.output


def test_for_scripts(site: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    done = run(
        "countersign", order(site, tmp_path / "order.json"), "--key", key, "--signers", site / SIGNERS_FILE,
        "--passphrase-file", tmp_path / "passphrase", "--yes",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(signing.decode_envelope(done.stdout.strip().encode()).signatures) == 2


def test_a_key_is_never_overwritten_and_never_under_a_short_passphrase(key: Path, tmp_path: Path) -> None:
    before = key.read_bytes()
    assert run("make-signer-key", key, says=f"{PASSPHRASE}\n{PASSPHRASE}\n").exit_code == 2
    assert key.read_bytes() == before
    short = run("make-signer-key", tmp_path / "new.key", says="short\nshort\n")
    assert short.exit_code == 2
    assert "at least 12 characters, got 5" in short.stderr
    assert not (tmp_path / "new.key").exists()


def test_what_is_no_order_no_key_or_no_site_is_told(site: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text("{}")
    assert signing_of(tmp_path / "order.json", key, site, "y\n").exit_code == 2
    assert signing_of(tmp_path / "none.json", key, site, "y\n").exit_code == 2
    assert run("add-signer", "ssh-ed25519 AAAA", "--dir", site).exit_code == 2
    nowhere = run("add-signer", "ed25519:AAAA", "--dir", tmp_path)
    assert nowhere.exit_code == 2
    assert "signers.json" in nowhere.stderr

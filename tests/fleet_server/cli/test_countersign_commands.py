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
from fleet_server.access.countersigning import public_text, read_public
from fleet_server.access.keys import FORMERS_MAX, MasterKeys
from fleet_server.adapters import site_directory
from fleet_server.adapters.signers_directory import SignersDirectory
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.cli import countersign_commands, signers_commands
from fleet_server.site import MASTER_KEY_FILE, SIGNERS_FILE, SIGNERS_ROOT_KEY, SIGNING_KEY_FILE
from tests.orders import CAR, ID

RUNNER = CliRunner()
APP = typer.Typer()
countersign_commands.add_commands(APP)
signers_commands.add_commands(APP)
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
    added = run("add-signer", public, "--dir", site, "--root-key", site / SIGNERS_ROOT_KEY)
    assert added.exit_code == 0, added.output
    assert run("add-signer", public, "--dir", site, "--root-key", site / SIGNERS_ROOT_KEY).exit_code == 2
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


def keyid(path: Path) -> str:
    return signing.key_id(ED25519, FileKey.read(path).public)


def new_site(tmp_path: Path) -> tuple[Path, SignersDirectory]:
    site_directory.create(
        tmp_path / "site", hosts=("localhost",), device_port=1, server_port=2, api_port=3, broker_user=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    return tmp_path / "site", SignersDirectory(tmp_path / "site" / SIGNERS_FILE)


def test_the_servers_key_is_followed_by_another_in_three_steps(tmp_path: Path) -> None:
    site, kept = new_site(tmp_path)
    root = ("--dir", site, "--root-key", site / SIGNERS_ROOT_KEY)
    old = keyid(site / SIGNING_KEY_FILE)
    assert run("remove-signer", old, *root).exit_code == 2
    assert run("rotate-signer", "--switch", "--dir", site).exit_code == 2
    assert run("rotate-signer", *root).exit_code == 0
    assert keyid(site / SIGNING_KEY_FILE) == old
    assert run("rotate-signer", "--switch", "--dir", site).exit_code == 0
    new = keyid(site / SIGNING_KEY_FILE)
    assert run("remove-signer", old, *root).exit_code == 0
    roots = kept.current().roots
    assert (roots.version, new in roots.holders(Kind.COMMAND), old in roots.holders(Kind.COMMAND)) == (3, True, False)
    assert len(kept.after(1)) == 2


def test_a_change_that_needs_two_waits_for_the_second_person(tmp_path: Path) -> None:
    site, kept = new_site(tmp_path)
    root = ("--dir", site, "--root-key", site / SIGNERS_ROOT_KEY)
    other = tmp_path / "b.key"
    other.write_bytes(new_key_pem())
    public = public_text(FileKey.read(other).public)
    assert run("add-signer", public, "--kind", "signers", *root).exit_code == 0
    for options in (("change-thresholds", "--signers", "2"), ("change-thresholds", "--disruptive", "2")):
        before = kept.current().roots.version
        proposed = run(*options, *root)
        assert proposed.exit_code == 0, proposed.output
        assert kept.current().roots.version == before
        (tmp_path / "step.json").write_text(proposed.stdout)
        assert run("adopt-signers", tmp_path / "step.json", "--dir", site).exit_code == 2
        signers = ("--signers", site / SIGNERS_FILE)
        again = run("sign-signers", tmp_path / "step.json", *signers, "--root-key", site / SIGNERS_ROOT_KEY, "--yes")
        assert again.exit_code == 1
        both = run("sign-signers", tmp_path / "step.json", *signers, "--root-key", other, "--yes")
        (tmp_path / "both.json").write_text(both.stdout)
        assert run("adopt-signers", tmp_path / "both.json", "--dir", site).exit_code == 0
        assert kept.current().roots.version == before + 1
        assert run("adopt-signers", tmp_path / "both.json", "--dir", site).exit_code == 2
    lone = run("change-thresholds", "--signers", "3", *root)
    assert lone.exit_code == 2


def test_nobody_changes_the_signers_without_a_root_key(tmp_path: Path) -> None:
    site, kept = new_site(tmp_path)
    other = tmp_path / "b.key"
    other.write_bytes(new_key_pem())
    public = public_text(FileKey.read(other).public)
    assert run("add-signer", public, "--dir", site).exit_code == 2
    for wrong in (other, site / SIGNING_KEY_FILE):
        assert run("add-signer", public, "--dir", site, "--root-key", wrong).exit_code == 2
    assert kept.current().roots.version == 1


def test_a_power_cut_between_step_and_file_leaves_the_new_version(tmp_path: Path) -> None:
    site, kept = new_site(tmp_path)
    before = (site / SIGNERS_FILE).read_bytes()
    assert (
        run("change-thresholds", "--disruptive", "2", "--dir", site, "--root-key", site / SIGNERS_ROOT_KEY).exit_code
        == 0
    )
    (site / SIGNERS_FILE).write_bytes(before)
    assert kept.current().roots.version == 2


def test_former_mac_keys_count_until_they_are_dropped(tmp_path: Path) -> None:
    site, _ = new_site(tmp_path)
    first = MasterKeys.parse((site / MASTER_KEY_FILE).read_text()).current
    for _ in range(FORMERS_MAX):
        assert run("rotate-mac-key", "--dir", site).exit_code == 0
    assert run("rotate-mac-key", "--dir", site).exit_code == 2
    keys = MasterKeys.parse((site / MASTER_KEY_FILE).read_text())
    assert keys.of(first.kid) == first != keys.current == keys.of("") == keys.of("stranger")
    assert run("drop-former-mac-keys", "--dir", site).exit_code == 0
    assert MasterKeys.parse((site / MASTER_KEY_FILE).read_text()) == MasterKeys(keys.current)
    assert stat.S_IMODE((site / MASTER_KEY_FILE).stat().st_mode) == 0o600

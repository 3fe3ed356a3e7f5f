"""A site works after every step of a rollover, however often the power goes; what it had revoked stays so."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from broker_config.ids import device_id
from fleet_server.access import ca
from fleet_server.adapters import rollover, site_directory
from fleet_server.adapters.authority import FORMER_CAS_MAX, FileKeys
from fleet_server.adapters.revocation_list import CrlFile, read_lists
from fleet_server.config import load
from fleet_server.rollover import common_name, file_name
from fleet_server.site import SiteError
from tests.softhsm import UTIL, Tokens, begin_anew, softhsm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1_500)
STEPS_MAX = 100


class PowerCutError(OSError):
    """Where a test pulls the plug."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site_directory.create(
        tmp_path / "site",
        hosts=("localhost",),
        device_port=8883,
        server_port=8884,
        api_port=8470,
        enrolment_port=8471,
        broker_user=None,
        now=NOW,
    )
    return tmp_path / "site"


def keys_of(site: Path) -> FileKeys:
    """As the server reads them."""
    table = load(site / "server/fleet-server.toml").device_ca
    assert table is not None
    return FileKeys(table.cert_file, table.key, table.formers)


def lists_of(site: Path, keys: FileKeys) -> CrlFile:
    return CrlFile(site / "broker/device-ca.crl", keys, site / "server/device-root.crl")


def roll(site: Path, now: datetime = LATER, days: int = 1_825) -> x509.Certificate:
    return rollover.roll(site, root_key=None, days=days, now=now).certificate


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    with softhsm(tmp_path / "hsm") as made:
        yield made


def roll_into(site: Path, tokens: Tokens, key: str) -> x509.Certificate:
    """To a key in a token, which is made if it is not there."""
    rolled = rollover.roll(site, root_key=None, days=1_825, now=LATER, key_uri=tokens.uri(f"object={key}"))
    return rolled.certificate


def works(site: Path, old: x509.Certificate, now: datetime) -> None:
    """The server starts, who signs now and who signed before are one each, and the broker knows both."""
    keys = keys_of(site)
    current = keys.authority()
    assert current.certificate == keys.chain()[0]
    known = {each.fingerprint(each.signature_hash_algorithm) for each in ca.vouching(keys)}  # type: ignore[arg-type]
    assert old.fingerprint(old.signature_hash_algorithm) in known  # type: ignore[arg-type]
    trusted = x509.load_pem_x509_certificates((site / "broker/device-ca.crt").read_bytes())
    assert {old, current.certificate, keys.chain()[-1]} <= set(trusted)
    lists = read_lists((site / "broker/device-ca.crl").read_bytes())
    for each in ca.authorities(keys):
        assert lists[each.certificate.subject].is_signature_valid(each.certificate.public_key())  # type: ignore[arg-type]
    assert lists_of(site, keys).has(7)
    ca.sign_device(current, "car-7", current.key.public_key(), now=now).verify_directly_issued_by(current.certificate)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that may be done before the power goes; empty: it stays."""
    left: list[int] = []
    for name in ("write_durably", "remove_durably"):
        done = getattr(rollover, name)

        def step(*args: object, _done: object = done, **more: object) -> None:
            if left:
                left[0] -= 1
                if left[0] < 0:
                    raise PowerCutError("cut")
            _done(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(rollover, name, step)
    return left


def test_a_power_cut_at_any_step_leaves_a_site_that_works_and_the_command_goes_on(
    tmp_path: Path, site: Path, cut: list[int]
) -> None:
    keys = keys_of(site)
    old = keys.authority().certificate
    lists_of(site, keys).publish([ca.Revoked(7, LATER)], now=LATER)
    before = tmp_path / "before"
    shutil.copytree(site, before)
    for after in range(STEPS_MAX):
        shutil.rmtree(site)
        shutil.copytree(before, site)
        cut[:] = [after]
        try:
            roll(site)
        except SiteError:
            works(site, old, LATER)
            cut[:] = [after // 2]  # and again, while it is repeated
            try:
                roll(site)
            except SiteError:
                works(site, old, LATER)
            cut.clear()
            roll(site)
            ended = False
        else:
            ended = True
        cut.clear()
        works(site, old, LATER)
        keys = keys_of(site)
        assert keys.authority().certificate != old
        assert not list(site.rglob("*.next.crt"))
        if ended:
            break
    assert ended
    assert after > 10, "the plug was never pulled"
    assert {path.stat().st_mode & 0o077 for path in site.rglob("*.key")} == {0}


def test_a_bench_device_made_after_it_shows_the_new_authority(site: Path) -> None:
    new = roll(site)
    made = site_directory.add_device(site, device_id("car-7"), "host", now=LATER)
    leaf, above = x509.load_pem_x509_certificates((made / "device.crt").read_bytes())
    assert above == new
    leaf.verify_directly_issued_by(new)


def test_authorities_have_names_of_their_own() -> None:
    assert common_name("1a2b", NOW) == "fieldfleet device CA 2026-01-01 1a2b"


def test_only_the_roots_own_key_signs_another(site: Path, tmp_path: Path) -> None:
    before = (site / "server/device-ca.crt").read_bytes()
    (tmp_path / "other.key").write_bytes(ca.new_root("other", now=NOW).key_pem)
    with pytest.raises(SiteError, match=r"other\.key: expected the key of ca/device-root\.crt"):
        rollover.roll(site, root_key=tmp_path / "other.key", days=1, now=LATER)
    (site / "ca/device-root.key").unlink()
    with pytest.raises(SiteError, match="--root-key FILE"):
        roll(site)
    assert (site / "server/device-ca.crt").read_bytes() == before
    assert not list(site.rglob("*.next.*"))


def test_former_authorities_are_bounded(site: Path) -> None:
    for _ in range(FORMER_CAS_MAX):
        roll(site)
    assert len(keys_of(site).former()) == FORMER_CAS_MAX
    with pytest.raises(SiteError, match="retire one first"):
        roll(site)


def test_one_is_retired_when_who_looked_says_so_or_when_it_has_expired(site: Path) -> None:
    first = keys_of(site).authority().certificate
    roll(site, days=100)
    second = keys_of(site).authority().certificate
    roll(site)
    with pytest.raises(SiteError, match="fieldfleet audit devices; then: --yes"):
        rollover.retire(site, "fieldfleet device CA", now=LATER, sure=False)
    with pytest.raises(SiteError, match="expected one of the former authorities"):
        rollover.retire(site, "another", now=LATER, sure=True)
    rollover.retire(site, "fieldfleet device CA", now=LATER, sure=True)
    assert [each.certificate for each in keys_of(site).former()] == [second]
    rollover.retire(site, file_name(second), now=LATER + timedelta(days=101), sure=False)
    keys = keys_of(site)
    assert keys.former() == ()
    lists_of(site, keys).publish([], now=LATER)
    assert set(read_lists((site / "broker/device-ca.crl").read_bytes())) == {
        keys.authority().certificate.subject,
        keys.chain()[-1].subject,
    }
    trusted = x509.load_pem_x509_certificates((site / "broker/device-ca.crt").read_bytes())
    assert not {first, second} & set(trusted)


def test_the_list_of_a_former_authority_without_a_key_stays_as_it_is(site: Path) -> None:
    lists_of(site, keys_of(site)).publish([ca.Revoked(7, LATER)], now=LATER)
    old = keys_of(site).authority().certificate
    roll(site)
    (site / f"server/former-device-cas/{file_name(old)}.key").unlink()
    before = read_lists((site / "broker/device-ca.crl").read_bytes())[old.subject]
    keys = keys_of(site)
    crl = lists_of(site, keys)
    crl.publish([ca.Revoked(8, LATER)], now=LATER + timedelta(days=5))
    after = read_lists((site / "broker/device-ca.crl").read_bytes())
    assert after[old.subject] == before
    assert after[keys.authority().certificate.subject].get_revoked_certificate_by_serial_number(8) is not None
    assert crl.until() == LATER + timedelta(days=5 + ca.CRL_DAYS)
    assert crl.ends()["CN=fieldfleet device CA"] == LATER + timedelta(days=ca.CRL_DAYS)
    assert crl.has(7)


@pytest.mark.server(UTIL)
@pytest.mark.parametrize("after", [0, 1, 2, 5, 9, 14])
def test_a_move_to_a_token_survives_a_power_cut_and_goes_on_with_the_same_key(
    site: Path, cut: list[int], tokens: Tokens, after: int
) -> None:
    keys = keys_of(site)
    old = keys.authority().certificate
    lists_of(site, keys).publish([ca.Revoked(7, LATER)], now=LATER)
    cut[:] = [after]
    with pytest.raises(SiteError):
        roll_into(site, tokens, "next")
    cut.clear()
    works(site, old, LATER)
    begun = (site / "ca/device-ca.next.crt").exists()
    if begun:
        with pytest.raises(SiteError, match="begun with another key"):
            roll_into(site, tokens, "another")
    new = roll_into(site, tokens, "next")
    works(site, old, LATER)
    assert keys_of(site).authority().certificate == new
    assert {path.read_text() for path in site.rglob("device-ca.key")} == {f"{tokens.uri('object=next')}\n"}


@pytest.mark.server(UTIL)
def test_each_authority_in_a_token_has_a_key_of_its_own(site: Path, tokens: Tokens) -> None:
    first = roll_into(site, tokens, "first")
    with pytest.raises(SiteError, match="name another key"):
        roll_into(site, tokens, "first")
    roll_into(site, tokens, "second")
    with pytest.raises(SiteError, match="name another key"):
        roll_into(site, tokens, "first")
    rollover.retire(site, file_name(first), now=LATER, sure=True)
    assert len(keys_of(site).former()) == 1


@pytest.mark.server(UTIL)
def test_a_site_whose_token_is_gone_for_good_moves_on_without_it(site: Path, tokens: Tokens) -> None:
    lost = roll_into(site, tokens, "lost")
    shutil.rmtree(tokens.directory / "tokens")
    (tokens.directory / "tokens").mkdir()
    begin_anew()
    with pytest.raises(ca.KeyUnreachableError, match="expected one of label site, got 0"):
        keys_of(site)
    new = roll(site)
    key_file = site / f"server/former-device-cas/{file_name(lost)}.key"
    with pytest.raises(ca.KeyUnreachableError, match=f"gone for good, remove {key_file}"):
        keys_of(site)
    key_file.unlink()
    assert keys_of(site).authority().certificate == new


@pytest.mark.server(UTIL)
def test_a_configuration_that_names_the_key_itself_works_and_says_what_a_rollover_needs(
    site: Path, tokens: Tokens
) -> None:
    new = roll_into(site, tokens, "own")
    config = site / "server/fleet-server.toml"
    text = config.read_text()
    config.write_text(text.replace('key_file = "device-ca.key"', f'key_uri = "{tokens.uri("object=own")}"'))
    (site / "server/device-ca.key").unlink()
    assert keys_of(site).authority().certificate == new
    with pytest.raises(SiteError, match="give key_file instead"):
        roll(site)

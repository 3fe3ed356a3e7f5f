"""A site is made whole by two commands, and is never overwritten."""

import stat
import tomllib
from pathlib import Path

import pytest
import typer
from cryptography import x509
from typer.testing import CliRunner

from broker_config.ids import server_user
from fleet_server import config
from fleet_server.access import notes
from fleet_server.adapters import site_directory
from fleet_server.cli import site_commands

RUNNER = CliRunner()
APP = typer.Typer()
site_commands.add_commands(APP)


def run(*arguments: str) -> tuple[int, str]:
    result = RUNNER.invoke(APP, arguments)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "site"
    assert run("init", "--dir", str(directory), "--host", "broker.example", "--host", "192.0.2.7")[0] == 0
    assert run("add-device", "car-7", "--dir", str(directory))[0] == 0
    return directory


def files_of(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_the_layout(site: Path) -> None:
    assert files_of(site) == [
        "broker/acl",
        "broker/broker.crt",
        "broker/broker.key",
        "broker/device-ca.crl",
        "broker/device-ca.crt",
        "broker/mosquitto.conf",
        "broker/server-ca.crt",
        "ca/device-ca.crt",
        "ca/device-ca.key",
        "ca/device-root.crt",
        "ca/device-root.key",
        "ca/server-ca.crt",
        "ca/server-ca.key",
        "ca/signers-root.key",
        "devices/car-7/agent.toml",
        "devices/car-7/device.crt",
        "devices/car-7/device.key",
        "devices/car-7/mac.json",
        "devices/car-7/server-ca.crt",
        "devices/car-7/signers.json",
        "server/api-token",
        "server/audit.key",
        "server/audit.pub",
        "server/benches/car-7.crt",
        "server/device-ca.crt",
        "server/device-ca.key",
        "server/device-root.crl",
        "server/enrolment.crt",
        "server/enrolment.key",
        "server/fleet-server.toml",
        "server/master.key",
        "server/server-ca.crt",
        "server/server.crt",
        "server/server.key",
        "server/signers.json",
        "server/signing.key",
        "site.toml",
    ]


def test_secrets_are_for_their_owner_and_directories_too(site: Path) -> None:
    for path in [site, *site.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        secret = path.suffix == ".key" or path.name in {"api-token", "mac.json", "acl"}
        assert mode == (0o700 if path.is_dir() else 0o600 if secret else 0o644), path


def test_the_server_reads_its_configuration(site: Path) -> None:
    loaded = config.load(site / "server" / "fleet-server.toml")
    assert loaded.state_dir == site / "server" / "state"
    assert (loaded.broker.host, loaded.broker.port, loaded.api.port) == ("127.0.0.1", 8884, 8470)
    assert loaded.site_id == site_directory.read_site(site).site_id


def test_the_audit_log_has_a_key_of_its_own_named_for_the_site(site: Path) -> None:
    signer = notes.Signer.parse((site / "server" / "audit.key").read_text())
    assert signer.name == f"fieldfleet/{site_directory.read_site(site).site_id}/audit"
    assert notes.Verifier.parse((site / "server" / "audit.pub").read_text()) == signer.verifier
    assert config.load(site / "server" / "fleet-server.toml").audit.key_file == site / "server" / "audit.key"


def test_a_site_that_was_made_before_gets_its_key(tmp_path: Path) -> None:
    run("init", "--dir", str(tmp_path / "site"))
    server = tmp_path / "site" / "server"
    file = server / "fleet-server.toml"
    file.write_text(file.read_text().partition("[audit]")[0])
    for name in ("audit.key", "audit.pub"):
        (server / name).unlink()
    with pytest.raises(config.ConfigError, match="make-audit-key"):
        config.load(file)
    code, output = run("make-audit-key", "--config", str(file))
    assert code == 0, output
    file.write_text(file.read_text() + output.partition(":\n")[2])
    assert config.load(file).audit.key_file == server / "audit.key"
    assert stat.S_IMODE((server / "audit.key").stat().st_mode) == 0o600
    before = (server / "audit.key").read_bytes()
    code, output = run("make-audit-key", "--config", str(file))
    assert (code, "never overwritten" in output) == (1, True)
    assert (server / "audit.key").read_bytes() == before


def test_the_key_of_the_root_is_in_one_place_and_init_says_where_it_belongs(tmp_path: Path) -> None:
    site = tmp_path / "site"
    code, output = run("init", "--dir", str(site))
    assert code == 0
    assert f"take offline, and keep: {site}/ca/device-root.key" in output
    key = (site / "ca/device-root.key").read_bytes()
    assert [path.name for path in site.rglob("*") if path.is_file() and key in path.read_bytes()] == [
        "device-root.key"
    ]


def test_without_enrolment_a_site_has_no_list_that_would_run_out(tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert run("init", "--dir", str(site), "--no-enrolment")[0] == 0
    assert "crl" not in (site / "broker/mosquitto.conf").read_text()
    assert not list(site.rglob("*.crl"))
    assert not (site / "server/device-ca.key").exists()
    loaded = config.load(site / "server" / "fleet-server.toml")
    assert (loaded.device_ca, loaded.enrolment) == (None, None)


def test_the_token_is_long_and_knows_its_name(site: Path) -> None:
    token = (site / "server" / "api-token").read_text().strip()
    assert token.startswith("ff_")
    assert len(token) - len("ff_") >= 160 / 6


def test_certificates_name_who_they_are_for(site: Path) -> None:
    device = x509.load_pem_x509_certificate((site / "devices/car-7/device.crt").read_bytes())
    server = x509.load_pem_x509_certificate((site / "server/server.crt").read_bytes())
    broker = x509.load_pem_x509_certificate((site / "broker/broker.crt").read_bytes())
    assert device.subject.rfc4514_string() == "CN=car-7"
    assert site_directory.read_site(site).site_id in server.subject.rfc4514_string()
    assert server_user(site_directory.read_site(site).site_id) in (site / "broker/acl").read_text()
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example", "localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "127.0.0.1"]


def test_the_agent_is_told_where_the_broker_is(site: Path) -> None:
    agent = tomllib.loads((site / "devices/car-7/agent.toml").read_text())
    assert agent["device"] == "car-7"
    assert agent["broker"] == {
        "host": "broker.example",
        "port": 8883,
        "ca_file": "server-ca.crt",
        "cert_file": "device.crt",
        "key_file": "device.key",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init",), "never overwritten"),
        (("add-device", "car-7"), "never overwritten"),
        (("add-device", "Car 8"), "expected 1 to 63 of a-z"),
        (("add-device", "_server"), "expected 1 to 63 of a-z"),
        (("add-device", "car-8", "--device-class", "submarine"), "expected one of body_camera, host"),
    ],
)
def test_what_is_refused_changes_nothing(site: Path, arguments: tuple[str, ...], words: str) -> None:
    before = {name: (site / name).read_bytes() for name in files_of(site)}
    code, output = run(*arguments, "--dir", str(site))
    assert code == 1
    assert words in output
    assert {name: (site / name).read_bytes() for name in files_of(site)} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "a\nlistener 1883"), "expected a name or an address"),
        (("--device-port", "8884"), "expected different ones"),
        (("--api-port", "0"), "expected different ones"),
    ],
)
def test_a_site_that_cannot_be_is_not_begun(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    code, output = run("init", "--dir", str(tmp_path / "site"), *arguments)
    assert code == 1
    assert words in output
    assert list(tmp_path.iterdir()) == []


def test_a_device_needs_a_site(tmp_path: Path) -> None:
    code, output = run("add-device", "car-7", "--dir", str(tmp_path))
    assert code == 1
    assert "site.toml: cannot be read" in output


def test_what_browsers_see_is_of_the_sites_own_authority_and_made_again_only_when_asked(tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert run("init", "--dir", str(site), "--host", "fleet.example")[0] == 0
    assert run("make-proxy-certificate", "--dir", str(site))[0] == 0
    made, key = site / "proxy" / "site.crt", site / "proxy" / "site.key"
    first = x509.load_pem_x509_certificate(made.read_bytes())
    first.verify_directly_issued_by(x509.load_pem_x509_certificate((site / "ca/server-ca.crt").read_bytes()))
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "fleet.example" in names.get_values_for_type(x509.DNSName)
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(made.stat().st_mode)) == (0o600, 0o644)
    code, output = run("make-proxy-certificate", "--dir", str(site))
    assert code != 0
    assert "--again" in output
    assert run("make-proxy-certificate", "--dir", str(site), "--again")[0] == 0
    assert x509.load_pem_x509_certificate(made.read_bytes()).serial_number != first.serial_number

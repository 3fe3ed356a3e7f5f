"""The scripts of a deployment, run here as the containers run them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_server import config
from tests.deploy.files import DEPLOY, ROOT, compose, services

HOST = "fleet.example"
PLACES = {
    "SITE": "site",
    "BROKER": "broker",
    "SERVER": "of-server/server",
    # beside the server's own, as in its container, where it is the broker's directory to it
    "REVOCATIONS": "of-server/broker",
    "SIGNER": "signer",
    "SIGNING": "signing",
    "PROXY": "proxy",
}
"""Of each volume, below a test's directory."""


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        ("sh", "init-site.sh"),
        ("sh", "make-secrets.sh"),
        ("sh", "reload-broker.sh"),
        ("sh", "install.sh"),
        ("bash", "influxdb/grafana-user.sh"),
    ],
)
def test_a_shell_takes_its_script(shell: str, script: str) -> None:
    assert os.access(DEPLOY / script, os.X_OK)
    subprocess.run([shell, "-n", DEPLOY / script], check=True)


def init_site(directory: Path, *arguments: str, containers: Path = DEPLOY / "containers.toml") -> None:
    """Run it as the service does, but below *directory*."""
    for place in PLACES.values():
        (directory / place).mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(
        ["sh", DEPLOY / "init-site.sh", *arguments],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "FIELDFLEET_HOST": HOST,
            "CONTAINERS": str(containers),
            **{name: str(directory / place) for name, place in PLACES.items()},
        },
        check=True,
        capture_output=True,
        timeout=60,
    )


def _names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def place(directory: Path, name: str) -> Path:
    return directory / PLACES[name]


def test_init_gives_each_its_own_files_and_no_more(tmp_path: Path) -> None:
    init_site(tmp_path)
    assert _names(place(tmp_path, "BROKER")) == {
        *("mosquitto.conf", "acl", "broker.crt", "broker.key", "device-ca.crt", "device-ca.crl", "server-ca.crt")
    }
    assert _names(place(tmp_path, "REVOCATIONS")) == {"device-ca.crl", "mosquitto.conf", "acl"}
    assert _names(place(tmp_path, "SERVER")) == {
        *("fleet-server.toml", "server.crt", "server.key", "server-ca.crt", "master.key", "api-token"),
        *("audit.key", "audit.pub", "signers.json", "enrolment.crt", "enrolment.key"),
        *("device-ca.crt", "device-ca.key", "device-root.crl"),
    }
    assert _names(place(tmp_path, "SIGNER")) == {"fleet-server.toml", "signing.key"}
    assert _names(place(tmp_path, "PROXY")) == {"site.crt", "site.key"}
    for name in ("BROKER", "REVOCATIONS", "SERVER", "SIGNER", "PROXY"):
        for path in place(tmp_path, name).iterdir():
            secret = path.suffix == ".key" or path.name in {"acl", "api-token"}
            assert stat.S_IMODE(path.stat().st_mode) == (0o600 if secret else 0o644), path


def test_the_servers_configuration_is_taken_by_its_own_parser(tmp_path: Path) -> None:
    init_site(tmp_path)
    path = place(tmp_path, "SERVER") / "fleet-server.toml"
    loaded = config.parse(path.read_text(), base=path.parent)
    # the volume of the server is where its store is
    assert loaded.state_dir == path.parent / "state"
    assert loaded.broker.host == "127.0.0.1"
    assert (loaded.broker.reload_command, loaded.broker.reload_pid_file) == (("true",), None)
    assert loaded.database.password_file == Path("/run/secrets/postgres-password")
    assert loaded.influx is not None
    assert loaded.influx.token_file == Path("/run/secrets/influxdb-token")
    assert f"127.0.0.1:{loaded.api.port}/" in str(services()["fleet-server"]["healthcheck"])
    assert loaded.enrolment is not None
    assert f"{loaded.enrolment.port}:{loaded.enrolment.port}" in services()["loopback"]["ports"]
    assert loaded.enrolment.broker_host == HOST


def test_server_and_signer_meet_at_the_socket_and_the_server_has_no_key(tmp_path: Path) -> None:
    init_site(tmp_path)
    server, signer = (place(tmp_path, name) / "fleet-server.toml" for name in ("SERVER", "SIGNER"))
    found = config.load_signer(signer)
    assert config.load_socket(server) == found.socket_file == place(tmp_path, "SIGNING") / "signer.sock"
    assert found.counter_file.is_relative_to(place(tmp_path, "SIGNER"))
    with pytest.raises(config.ConfigError, match=r"signing\.key"):
        config.load_signer(server)


def test_the_broker_reads_the_list_that_the_server_writes_and_a_later_start_leaves_it(tmp_path: Path) -> None:
    init_site(tmp_path)
    server = config.parse(
        (place(tmp_path, "SERVER") / "fleet-server.toml").read_text(), base=place(tmp_path, "SERVER")
    )
    assert server.device_ca is not None
    server.device_ca.crl_file.write_bytes(b"another list")
    init_site(tmp_path)
    assert (place(tmp_path, "BROKER") / "device-ca.crl").read_bytes() == b"another list"


def test_a_certificate_of_the_bureaus_own_is_left_to_browsers(tmp_path: Path) -> None:
    init_site(tmp_path)
    (place(tmp_path, "PROXY") / "site.crt").write_bytes(b"the bureau's")
    init_site(tmp_path)
    assert (place(tmp_path, "PROXY") / "site.crt").read_bytes() == b"the bureau's"


def test_a_second_start_makes_no_second_site_and_leaves_the_store_alone(tmp_path: Path) -> None:
    init_site(tmp_path)
    store = place(tmp_path, "SERVER") / "state" / "telemetry.db"
    store.parent.mkdir()
    store.write_bytes(b"kept")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    init_site(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_site_without_enrolment_goes_on_as_it_was(tmp_path: Path) -> None:
    init_site(tmp_path, "--no-enrolment")
    init_site(tmp_path)
    assert _names(place(tmp_path, "REVOCATIONS")) == set()
    path = place(tmp_path, "SERVER") / "fleet-server.toml"
    assert config.parse(path.read_text(), base=path.parent).enrolment is None


def test_no_site_is_made_without_a_name_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", DEPLOY / "init-site.sh"], env={"PATH": "/usr/bin:/bin", "SITE": str(tmp_path)}, check=False
    )
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def _make_secrets(directory: Path) -> dict[str, str]:
    subprocess.run(["sh", DEPLOY / "make-secrets.sh", directory], check=True)
    return {name: (directory / name).read_text() for name in _names(directory)}


@pytest.mark.root("each secret is given to the user who reads it")
def test_secrets_are_random_readable_by_one_and_those_that_compose_names(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    made = _make_secrets(directory)
    assert {f"./deploy/secrets/{name}" for name in made} == {
        secret["file"] for secret in compose()["secrets"].values()
    }
    assert all(len(value) == 64 and int(value, 16) for value in made.values())
    # three of them have two readers, and so two files
    assert len(set(made.values())) == len(made) - 3
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    users = {name: service["user"].split(":")[0] for name, service in services().items()}
    for name in made:
        status = (directory / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o400
        assert str(status.st_uid) == users[name.split("/")[0]]


@pytest.mark.root("each secret is given to the user who reads it")
def test_a_secret_that_is_there_is_kept_and_its_second_reader_gets_the_same(tmp_path: Path) -> None:
    first = _make_secrets(tmp_path)
    (tmp_path / "grafana" / "influxdb-grafana-password").unlink()
    (tmp_path / "grafana" / "admin-password").unlink()
    again = _make_secrets(tmp_path)
    assert again["grafana/influxdb-grafana-password"] == first["influxdb/grafana-password"]
    assert {name for name, value in again.items() if first[name] != value} == {"grafana/admin-password"}

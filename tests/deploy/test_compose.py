"""compose.yaml without a container engine: its schema, what it promises of each service, and what it mounts."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
import yaml

from dashboards.provisioning import DASHBOARDS_DIRECTORY, DATABASE, PASSWORD_FILE, READER, URL
from dashboards.rendered import files
from fleet_server import site
from fleet_server.config import API_PORT
from tests.deploy.files import COMPOSE, DEPLOY, ROOT, compose, services

ENV_EXAMPLE = ROOT / ".env.example"
TLS_PORT, PLAIN_PORT = 8443, 8080
SERVICES = services()
RUNNING = sorted(name for name, service in SERVICES.items() if service["restart"] != "no")


def _docker_compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker-compose", "-f", str(COMPOSE), *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _example() -> dict[str, str]:
    """``.env.example`` as docker-compose reads it."""
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_variable_that_compose_names_is_in_the_example_and_no_other() -> None:
    named = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    assert named == _example().keys()


def test_the_example_says_no_secret_and_each_of_its_names_what_it_is() -> None:
    text = ENV_EXAMPLE.read_text(encoding="utf-8")
    assert not re.search(r"PASSWORD|TOKEN|SECRET|KEY", text)
    for name in _example():
        before = text[: text.index(f"{name}=")].splitlines()
        assert before[-1].startswith("# "), name


@pytest.mark.server("docker-compose")
def test_compose_itself_takes_the_file() -> None:
    done = _docker_compose("--env-file", str(ENV_EXAMPLE), "config")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()


@pytest.mark.server("docker-compose")
def test_nothing_starts_before_the_host_is_named() -> None:
    done = _docker_compose("config", "-q")
    assert done.returncode != 0
    assert "the name or address at which devices reach this machine" in done.stderr


def test_a_site_has_these_services() -> None:
    ours = {"loopback", "mosquitto", "reload-broker", "signer", "fleet-server"}
    assert set(RUNNING) == {*ours, "nginx", "influxdb", "grafana", "postgres"}


@pytest.mark.parametrize("name", RUNNING)
def test_a_service_is_watched_bounded_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert not service.get("privileged")
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert "/var/run/docker.sock" not in str(service.get("volumes"))


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_by_a_version(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert re.match(r"\d+\.\d+", tag), tag


def test_our_own_image_has_the_version_of_what_is_in_it() -> None:
    ours = {service["image"] for service in SERVICES.values() if "build" in service}
    assert ours == {f"fieldfleet:{version('fieldfleet')}"}


def test_devices_two_ports_are_open_and_the_two_of_browsers() -> None:
    opened = [port for service in SERVICES.values() for port in service.get("ports", [])]
    devices = [f"{port}:{port}" for port in (site.ENROLMENT_PORT, site.DEVICE_PORT)]
    assert sorted(opened) == sorted([f"443:{TLS_PORT}", f"80:{PLAIN_PORT}", *devices])


def test_nginx_listens_where_compose_says_and_finds_the_api_grafana_and_its_certificate() -> None:
    told = (DEPLOY / "nginx" / "fieldfleet.conf").read_text(encoding="utf-8")
    assert re.findall(r"listen (\d+)", told) == [str(PLAIN_PORT), str(TLS_PORT)]
    assert f":{TLS_PORT:04X} " in str(SERVICES["nginx"]["healthcheck"])
    assert f"server 127.0.0.1:{API_PORT};" in told
    assert SERVICES["nginx"]["network_mode"] == SERVICES["fleet-server"]["network_mode"]
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["loopback"]["networks"]) == {"pages"}
    assert "proxy:/proxy:ro" in SERVICES["nginx"]["volumes"]
    assert "/etc/fieldfleet/nginx/nginx.conf" in SERVICES["nginx"]["entrypoint"]


def test_grafana_knows_below_which_path_it_is() -> None:
    told = SERVICES["grafana"]["environment"]
    assert told["GF_SERVER_ROOT_URL"].endswith("/grafana/")
    assert told["GF_SERVER_SERVE_FROM_SUB_PATH"] == told["GF_SECURITY_COOKIE_SECURE"] == "true"


def test_broker_and_server_share_a_loopback_that_outlives_both() -> None:
    assert SERVICES["mosquitto"]["network_mode"] == "service:loopback"
    assert SERVICES["fleet-server"]["network_mode"] == "service:loopback"
    assert str(API_PORT) in str(SERVICES["fleet-server"]["healthcheck"])


@pytest.mark.parametrize(("one", "other"), [("grafana", "postgres"), ("influxdb", "postgres")])
def test_who_has_nothing_to_say_to_another_cannot(one: str, other: str) -> None:
    assert not set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"])


def test_stores_are_on_networks_without_a_way_out() -> None:
    internal = {name for name, network in compose()["networks"].items() if network.get("internal")}
    for name in ("influxdb", "postgres"):
        assert set(SERVICES[name]["networks"]) <= internal


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_the_health_of_what_it_needs(name: str) -> None:
    needed = SERVICES[name].get("depends_on", {})
    assert all(
        condition == {"condition": "service_completed_successfully" if other == "init" else "service_healthy"}
        for other, condition in needed.items()
    )


def test_every_mounted_path_is_in_the_repository_and_read_only() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", []) if mount.startswith(".")]
    assert len(mounts) == 5
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (ROOT / source).exists()
        assert mode == "ro"


def test_every_named_volume_is_declared_and_used() -> None:
    used = {
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if not mount.startswith((".", "$"))
    }
    assert used == compose()["volumes"].keys()


def test_only_what_makes_the_site_or_backs_it_up_sees_the_authorities() -> None:
    seeing = {
        mount: name
        for name, service in SERVICES.items()
        for mount in service.get("volumes", [])
        if mount.startswith("site:")
    }
    assert seeing == {"site:/site": "init", "site:/site:ro": "backup"}
    assert SERVICES["init"]["network_mode"] == "none"
    assert SERVICES["mosquitto"]["volumes"] == ["broker:/broker:ro", "revocations:/revocations:ro"]


def _volumes(name: str) -> set[str]:
    return {mount.split(":")[0] for mount in SERVICES[name].get("volumes", [])}


def test_only_the_signer_has_the_signing_key_and_it_has_no_network() -> None:
    running = [name for name in RUNNING if "signer" in _volumes(name)]
    assert running == ["signer"]
    assert SERVICES["signer"]["network_mode"] == "none"
    assert {name for name in RUNNING if "signing" in _volumes(name)} == {"signer", "fleet-server"}


def test_who_sees_the_brokers_process_has_no_key_and_no_network_and_nobody_sees_the_servers() -> None:
    sharing = {name: service["pid"] for name, service in SERVICES.items() if "pid" in service}
    assert sharing == {"reload-broker": "service:mosquitto"}
    reloading = SERVICES["reload-broker"]
    assert reloading["network_mode"] == "none"
    assert all(mount.endswith(":ro") for mount in reloading["volumes"])
    assert _volumes("reload-broker") == {"revocations", "./deploy/reload-broker.sh"}
    assert not reloading.get("secrets")
    # the init that hands a SIGHUP on is number 1 there, and a signal needs the same user
    assert SERVICES["mosquitto"]["init"] is True
    assert reloading["user"] == SERVICES["mosquitto"]["user"]


def test_a_backup_runs_when_it_is_asked_for_and_can_change_nothing_but_backups_and_sqlites_own_files() -> None:
    service = SERVICES["backup"]
    assert service["profiles"] == ["backup"]
    assert "ports" not in service
    assert service["networks"] == ["records"]
    writable = [mount for mount in service["volumes"] if not mount.endswith(":ro")]
    assert [mount.rpartition(":")[2] for mount in writable] == ["/server", "/backups"]
    told = [part.partition("=") for part in service["command"] if part.startswith("--")]
    assert {path for name, _, path in told if name == "--also"} == {"/site", "/broker", "/signer", "/proxy"}


def test_what_the_server_writes_for_the_broker_is_in_a_volume_of_its_own() -> None:
    assert {name for name in RUNNING if "broker" in _volumes(name)} == {"mosquitto"}
    assert "revocations:/broker" in SERVICES["fleet-server"]["volumes"]


def test_no_secret_is_in_the_file_or_in_an_environment() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|KEY", name):
                assert name.endswith("_FILE"), name
                assert str(value).startswith("/run/secrets/")
    assert all(secret.keys() == {"file"} for secret in compose()["secrets"].values())


def _secret_targets(name: str) -> set[str]:
    return {
        f"/run/secrets/{secret['target'] if isinstance(secret, dict) else secret}"
        for secret in SERVICES[name].get("secrets", [])
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_file_that_a_service_reads_is_given_to_it(name: str) -> None:
    named = re.findall(r"/run/secrets/[\w-]+", str(SERVICES[name].get("environment", {})))
    assert set(named) <= _secret_targets(name)


def test_every_secret_is_given_to_one_service() -> None:
    given = [
        secret["source"] if isinstance(secret, dict) else secret
        for service in SERVICES.values()
        for secret in service.get("secrets", [])
    ]
    assert sorted(given) == sorted(compose()["secrets"])


def test_the_server_finds_the_containers_by_their_names() -> None:
    told = tomllib.loads((DEPLOY / "containers.toml").read_text(encoding="utf-8"))
    url = urlsplit(told["database"]["url"])
    database = SERVICES["postgres"]["environment"]
    assert url.hostname == "postgres"
    assert (url.username, url.path) == (database["POSTGRES_USER"], f"/{database['POSTGRES_DB']}")
    assert told["database"]["password_file"] in _secret_targets("fleet-server")


def test_the_server_writes_to_the_bucket_that_influxdb_is_told_to_make() -> None:
    told = tomllib.loads((DEPLOY / "containers.toml").read_text(encoding="utf-8"))["influx"]
    environment = SERVICES["influxdb"]["environment"]
    assert told["url"] == URL
    assert told["org"] == environment["DOCKER_INFLUXDB_INIT_ORG"]
    assert told["bucket"] == environment["DOCKER_INFLUXDB_INIT_BUCKET"] == DATABASE
    assert f"{told['retention_d']}d" == environment["DOCKER_INFLUXDB_INIT_RETENTION"]
    assert told["token_file"] in _secret_targets("fleet-server")


def test_grafana_finds_what_is_rendered_where_it_is_mounted() -> None:
    providers = yaml.safe_load(files()["provisioning/dashboards/fieldfleet.yaml"])["providers"]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["./dashboards/grafana/dashboards"] == DASHBOARDS_DIRECTORY
    directories = [PurePosixPath(provider["options"]["path"]) for provider in providers]
    rendered = {PurePosixPath(path).parent for path in files() if path.endswith(".json")}
    assert {PurePosixPath("dashboards") / path.relative_to(DASHBOARDS_DIRECTORY) for path in directories} == rendered
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent in directories
    assert str("dashboards" / home.relative_to(DASHBOARDS_DIRECTORY)) in files()


def test_grafana_asks_as_the_user_whom_influxdb_is_told_of() -> None:
    environment = SERVICES["influxdb"]["environment"]
    assert URL == "http://influxdb:8086"
    assert environment["DOCKER_INFLUXDB_INIT_BUCKET"] == DATABASE
    assert PASSWORD_FILE in _secret_targets("grafana")
    assert PASSWORD_FILE in _secret_targets("influxdb")
    told = (DEPLOY / "influxdb" / "grafana-user.sh").read_text()
    assert f"--username {READER} " in told
    assert f"cat {PASSWORD_FILE})" in told

"""``install.sh`` into a directory that stands for a Debian machine; what it laid out, run by the programs."""

import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet_server import config
from tests.deploy.files import DEPLOY
from tests.deploy.test_programs import _health, _running
from tests.servers import HOST, accepts, free_ports, program, wait_until

pytestmark = [
    pytest.mark.root("each file is given to the user who reads it"),
    pytest.mark.server("systemd-sysusers"),
    pytest.mark.server("mosquitto"),
]
PASSWD = """\
root:x:0:0:root:/root:/bin/bash
mosquitto:x:104:107::/var/lib/mosquitto:/usr/sbin/nologin
"""
GROUP = "root:x:0:\nmosquitto:x:107:\n"
UNITS = ("fleet-server.service", "fleet-signer.service", "fieldfleet-reload-broker.path", "fieldfleet-backup.timer")
FIELDFLEET = Path("etc/fieldfleet")


def install(root: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    programs = str(Path(sys.executable).parent)
    return subprocess.run(
        [DEPLOY / "install.sh", "--root", root, "--host", "localhost", "--program", programs, "--", *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ports: list[int]) -> Path:
    directory = tmp_path_factory.mktemp("debian")
    (directory / "etc").mkdir()
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    names = ("--device-port", "--server-port", "--api-port", "--enrolment-port")
    done = install(directory, *(f"{name}={port}" for name, port in zip(names, ports, strict=True)))
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def _owner(root: Path, path: Path) -> str:
    uid = path.lstat().st_uid
    names = {line.split(":")[2]: line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()}
    return names[str(uid)]


@pytest.mark.parametrize(
    ("directory", "owner"),
    [
        ("etc/fieldfleet/broker", "mosquitto"),
        ("etc/fieldfleet/server", "fieldfleet-server"),
        ("etc/fieldfleet/signer", "fieldfleet-signer"),
        ("etc/fieldfleet/proxy", "root"),
        ("var/lib/fieldfleet-site", "root"),
        ("var/lib/fieldfleet-server", "fieldfleet-server"),
        ("var/lib/fieldfleet-signer", "fieldfleet-signer"),
        ("srv/fieldfleet-backups", "root"),
    ],
)
def test_a_directory_and_all_in_it_is_its_users_alone(root: Path, directory: str, owner: str) -> None:
    at = root / directory
    assert stat.S_IMODE(at.stat().st_mode) == 0o700
    assert {_owner(root, path) for path in (at, *at.rglob("*"))} == {owner}


def test_the_broker_reads_the_servers_list_and_no_more_of_it(root: Path) -> None:
    shared = root / "var/lib/fieldfleet-revocations"
    assert (_owner(root, shared), stat.S_IMODE(shared.stat().st_mode)) == ("fieldfleet-server", 0o755)
    link = root / FIELDFLEET / "broker/device-ca.crl"
    assert link.is_symlink()
    assert link.resolve() == (shared / "device-ca.crl").resolve()
    assert stat.S_IMODE((shared / "device-ca.crl").stat().st_mode) == 0o644


def test_only_the_signer_has_the_signing_key_and_the_server_may_ask_it(root: Path) -> None:
    found = list((root / "etc").rglob("signing.key"))
    assert found == [root / FIELDFLEET / "signer/signing.key"]
    place = config.load_signer(found[0].with_name("fleet-server.toml"))
    assert place.client_uids == {(root / FIELDFLEET / "server").stat().st_uid}
    assert place.socket_file == config.load_socket(root / FIELDFLEET / "server/fleet-server.toml")


def test_no_file_that_is_laid_out_names_the_directory_it_was_laid_out_in(root: Path) -> None:
    for path in (
        *(root / FIELDFLEET).rglob("*"),
        *(root / "etc/systemd").rglob("*"),
        *(root / "etc/nginx").rglob("*"),
    ):
        if path.is_file():
            assert str(root).encode() not in path.read_bytes(), path


def test_a_second_run_changes_nothing(root: Path) -> None:
    def everything() -> dict[Path, tuple[bytes, int]]:
        laid_out = [root / "etc/fieldfleet", root / "etc/nginx", root / "etc/systemd", root / "var/lib"]
        paths = [path for at in laid_out for path in at.rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_uid) for path in paths}

    before = everything()
    assert install(root).returncode == 0
    assert everything() == before


def test_nothing_is_laid_out_without_a_name_for_it(tmp_path: Path) -> None:
    done = subprocess.run([DEPLOY / "install.sh", "--root", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode != 0, "--host" in done.stderr) == (True, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("unit", [*UNITS, "fieldfleet-backup.service", "fieldfleet-reload-broker.service"])
def test_systemd_takes_each_unit_without_a_word(root: Path, tmp_path: Path, unit: str) -> None:
    for path in (root / "etc/systemd/system").glob("fieldfleet*"):
        (tmp_path / path.name).write_text(_with_programs(path))
    (tmp_path / unit).write_text(_with_programs(root / "etc/systemd/system" / unit))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _with_programs(path: Path) -> str:
    return path.read_text().replace("/opt/fieldfleet/bin", str(Path(sys.executable).parent))


@pytest.mark.server("systemd-analyze")
def test_mosquitto_that_was_taken_over_reaches_little(root: Path, tmp_path: Path) -> None:
    debian = Path("/lib/systemd/system/mosquitto.service")
    if not debian.exists():
        pytest.skip("Debian's mosquitto.service is not here")
    # one file: security looks offline at the unit alone
    more = (root / "etc/systemd/system/mosquitto.service.d/fieldfleet.conf").read_text().partition("[Service]\n")[2]
    text = debian.read_text()
    (tmp_path / "mosquitto.service").write_text(text.replace("\n[Install]", f"\n[Service]\n{more}\n[Install]"))
    for command in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=25", "--no-pager"]):
        done = subprocess.run(
            ["systemd-analyze", *command, tmp_path / "mosquitto.service"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-800:] + done.stderr


@pytest.fixture
def here(root: Path) -> Iterator[Path]:
    """The configurations' paths begin at *root* while a test runs, as they would in a root of their own."""
    files = [root / FIELDFLEET / name / "fleet-server.toml" for name in ("server", "signer")]
    before = {file: file.read_text() for file in files}
    for file, text in before.items():
        file.write_text(re.sub(r'"/(var|run)/', rf'"{root}/\1/', text))
    broker = root / FIELDFLEET / "broker/mosquitto.conf"
    before[broker] = broker.read_text()
    broker.write_text(f"{before[broker]}user {pwd.getpwuid(os.geteuid()).pw_name}\n")
    yield root
    for file, text in before.items():
        file.write_text(text)


def test_broker_signer_and_server_run_on_what_was_laid_out(here: Path, ports: list[int]) -> None:
    _, server_port, api_port, enrolment_port = ports
    programs = Path(sys.executable).parent
    at = here / FIELDFLEET
    with ExitStack() as stack:
        stack.enter_context(_running([program("mosquitto") or "", "-c", "mosquitto.conf"], at / "broker"))
        wait_until(lambda: accepts(server_port), "mosquitto accepts")
        for command, place in (("signer", at / "signer"), ("run", at / "server")):
            argv = [str(programs / "fleet-server"), command, "--config", str(place / "fleet-server.toml")]
            stack.enter_context(_running(argv, place))
        wait_until(lambda: _health(api_port) == "ok", "the server is connected to the broker", 60)
        wait_until((here / "run/fieldfleet-signer/signer.sock").is_socket, "the signer serves", 30)
        assert stat.S_IMODE((here / "run/fieldfleet-signer/signer.sock").stat().st_mode) == 0o666
        assert accepts(enrolment_port)
    assert (here / "var/lib/fieldfleet-server/telemetry.db").is_file()


@pytest.mark.server("nginx")
def test_nginx_takes_what_was_laid_out_from_debians_own_file(root: Path, tmp_path: Path) -> None:
    ours = (root / "etc/nginx/conf.d/fieldfleet.conf").read_text()
    tls_port, plain_port = free_ports(2)
    for old, new in (
        ("listen 443 ", f"listen {HOST}:{tls_port} "),
        ("listen 80 ", f"listen {HOST}:{plain_port} "),
        ("/etc/fieldfleet/", f"{root}/etc/fieldfleet/"),
        ("/var/log/nginx/", f"{tmp_path}/"),
    ):
        assert old in ours
        ours = ours.replace(old, new)
    (tmp_path / "fieldfleet.conf").write_text(ours)
    debian = Path("/etc/nginx/nginx.conf").read_text()
    for old, new in (
        ("include /etc/nginx/conf.d/*.conf;", f"include {tmp_path}/fieldfleet.conf;"),
        ("include /etc/nginx/sites-enabled/*;", ""),
        ("/var/log/nginx/", f"{tmp_path}/"),
        ("/run/nginx.pid", f"{tmp_path}/nginx.pid"),
    ):
        assert old in debian
        debian = debian.replace(old, new)
    (tmp_path / "nginx.conf").write_text(debian)
    checked = subprocess.run(
        [program("nginx") or "", "-t", "-c", tmp_path / "nginx.conf", "-e", "stderr"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr, checked.stderr

from collections.abc import Callable
from pathlib import Path

import pytest

from broker_config.ids import SiteId
from broker_config.render.mosquitto import ACL_FILE, CONFIG_FILE, BadSiteError, MosquittoSite, render
from tests.servers import mosquitto

GOLDEN = Path(__file__).parent / "golden"
SITE = SiteId("0123456789abcdef" * 4)
BARE = MosquittoSite(site=SITE)
FULL = MosquittoSite(
    site=SITE,
    directory="/etc/fieldfleet/broker",
    device_host="192.0.2.7",
    server_host="198.51.100.7",
    crl_file="/etc/fieldfleet/broker/device-ca.crl",
    persistence_directory="/var/lib/fieldfleet/broker",
    user="mosquitto",
    log_dest="syslog",
    pid_file="/run/fieldfleet/broker.pid",
)


@pytest.mark.parametrize(("folder", "site"), [("mosquitto_bare", BARE), ("mosquitto_full", FULL)])
def test_rendered_files_are_the_golden_ones(
    folder: str, site: MosquittoSite, golden: Callable[[Path, str], None]
) -> None:
    rendered = render(site)
    assert set(rendered) == {CONFIG_FILE, ACL_FILE}
    for name, text in rendered.items():
        golden(GOLDEN / folder / name, text)


@pytest.mark.parametrize("text", ["", " ", "a\nallow_anonymous true", "a\0", "a\x1b[2J", "a\u2028b"])
def test_no_value_can_add_a_line(text: str) -> None:
    for site in (
        MosquittoSite(site=SITE, directory=text),
        MosquittoSite(site=SITE, server_host=text),
        MosquittoSite(site=SITE, user=text),
        MosquittoSite(site=SiteId(text)),
    ):
        with pytest.raises(BadSiteError, match="expected printable text on one line"):
            render(site)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_is_a_port(port: int) -> None:
    with pytest.raises(BadSiteError, match="expected 1 to 65535"):
        render(MosquittoSite(site=SITE, device_port=port))


def test_each_listener_trusts_its_own_authority_only() -> None:
    _, devices, server = render(BARE)[CONFIG_FILE].split("\nlistener ")
    assert "device-ca.crt" in devices
    assert "server-ca.crt" not in devices
    assert "server-ca.crt" in server
    assert "device-ca.crt" not in server


def test_settings_are_never_per_listener() -> None:
    assert "per_listener_settings" not in render(FULL)[CONFIG_FILE]


@pytest.mark.server("mosquitto")
def test_the_real_program_takes_every_setting(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        broker.stop()
        complaints = [line for line in broker.log().splitlines() if "Error" in line or "Warning" in line]
    # the last two are of the probe that waits until the listeners accept, and hangs up
    known = ("should not be run as root", "'ff/1/server/state' does not contain", "OpenSSL Error", "rotocol error")
    assert [line for line in complaints if not any(part in line for part in known)] == []

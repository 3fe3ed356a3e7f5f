"""Pictures of the server's pages for the README, from the demo as it runs: ``python -m tests.screenshots``."""

import argparse
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, FloatRect, ViewportSize

from fleet_server.cli.server import Json, Place, Server, connect
from fleet_server.config import Config, ConfigError, load
from tests.servers import wait_until
from tests.system.browsers import PHONE, chromium, visiting

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = ROOT / "docs/screenshots"
DESK: Final = ViewportSize(width=1180, height=700)
START_S_MAX: Final = 90.0
STOP_S_MAX: Final = 60.0
LOOK_S: Final = 180.0
"""Of readings, so that charts have something to show."""
DEMO_S: Final = 600.0
FILE_BYTES: Final = 400_000_000
"""Large enough to be on its way when the picture is taken."""
MIB: Final = 1024 * 1024
TALL: Final = FloatRect(x=0, y=0, width=1180, height=1240)
NODES: Final = (
    ("hq", "centre", "Command centre", None),
    ("harbour", "station", "Harbour station", "hq"),
    ("old-town", "station", "Old Town station", "hq"),
    ("market", "post", "Market community post", "old-town"),
)
PLACES: Final = {"camera-12": "harbour", "car-7": "harbour", "light-3": "market", "room-2": "old-town"}
HOLDERS: Final = {"camera-12": {"officer": "B-1042", "shift": "day"}, "car-7": {"vehicle": "P-17", "shift": "day"}}


@contextmanager
def demo(directory: Path) -> Iterator[Config]:
    """With ``--changes``, so that there are rollouts; ended with the block."""
    command = [sys.executable, "-m", "fleet_server.cli", "demo", "--changes", "--seconds", str(DEMO_S)]
    log = (directory / "demo.log").open("wb")
    process = subprocess.Popen([*command, "--dir", str(directory / "site")], cwd=ROOT, stdout=log, stderr=log)
    try:
        yield _config(directory / "site/server/fleet-server.toml")
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()  # what it started dies with it
            process.wait()


def _config(path: Path) -> Config:
    """Once it is there, and all that it names."""
    found: list[Config] = []

    def ready() -> bool:
        try:
            found.append(load(path))
        except ConfigError:
            return False
        return True

    wait_until(ready, "the demo has made its site", START_S_MAX)
    return found[-1]


def arrange(server: Server) -> None:
    """Give the devices their places, and two of them to somebody."""
    wait_until(lambda: _connected(server) == len(PLACES), "all devices of the demo are connected", START_S_MAX)
    for node, kind, name, parent in NODES:
        said: Json = {"kind": kind, "name": name, **({} if parent is None else {"parent": parent})}
        server.send("PUT", f"/v1/org-nodes/{node}", json=said, headers={"If-None-Match": "*"})
    for device, node in PLACES.items():
        patch = {"Content-Type": "application/merge-patch+json", "If-Match": "*"}
        server.send("PATCH", f"/v1/devices/{device}/registration", json={"node": node}, headers=patch)
    for device, whom in HOLDERS.items():
        server.send("POST", f"/v1/devices/{device}/check-out", json={**whom, "override": "for a picture"})


def record(site: Path) -> None:
    """A file in the camera's folder; it is closed once it has its name."""
    folder = site / "devices/camera-12/state/files/logs"
    part = folder.parent / "night-shift.log"
    with part.open("wb") as file:
        for _ in range(FILE_BYTES // MIB):
            file.write(secrets.token_bytes(MIB))
    part.rename(folder / part.name)


def _connected(server: Server) -> int:
    try:
        document = server.get("/v1/devices")
    except Exception:  # noqa: BLE001 - it is not up yet, whatever it says
        return 0
    assert isinstance(document, dict)
    devices = document["devices"]
    assert isinstance(devices, list)
    return sum(each["connected"] is True for each in devices if isinstance(each, dict))


def take(browser: Browser, url: str, token: str, target: Path, record: Callable[[], None]) -> None:
    """All of them. *record*: makes a file that is then uploaded."""
    target.mkdir(parents=True, exist_ok=True)
    with visiting(browser, url, size=DESK) as visit:
        visit.sign_in(token)
        visit.page.screenshot(path=target / "fleet.png")
        visit.page.goto(f"{url}/devices/car-7?span=15m")
        visit.page.screenshot(path=target / "device.png", full_page=True, clip=TALL)
        visit.page.goto(f"{url}/evidence")
        record()
        visit.page.wait_for_function("() => document.querySelector('#moving progress')?.value > 0.2 * 4e8")
        visit.page.screenshot(path=target / "evidence.png")
        visit.page.goto(f"{url}/rollouts")
        visit.page.locator("#rollouts a").last.click()
        visit.page.wait_for_selector("#waves")
        visit.page.screenshot(path=target / "rollout.png")
    with visiting(browser, url, size=PHONE, language="zh-CN", dark=True) as visit:
        visit.sign_in(token)
        visit.page.goto(f"{url}/devices/camera-12?span=15m")
        visit.page.screenshot(path=target / "phone.png")


def main() -> None:
    """Run the demo, wait, and take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=TARGET, help="a directory, %(default)s")
    target: Path = parser.parse_args().to
    with tempfile.TemporaryDirectory(prefix="fieldfleet-pictures-") as made, demo(Path(made)) as config:
        token = config.api.token_file.read_text(encoding="ascii").strip()
        with connect(Place(config.api.url, config.api.token_file)) as server:
            arrange(server)
        time.sleep(LOOK_S)
        with chromium() as browser:
            take(browser, config.api.url, token, target, lambda: record(Path(made) / "site"))
    for picture in sorted(target.glob("*.png")):
        print(f"{picture.relative_to(ROOT) if picture.is_relative_to(ROOT) else picture}: {picture.stat().st_size} B")


if __name__ == "__main__":
    main()

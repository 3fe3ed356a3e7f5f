"""``python -m dashboards render``, as a site's operator types it."""

import json
import subprocess
import sys
from pathlib import Path


def render(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dashboards", "render", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_site_renders_one_language_in_its_zone_with_links_to_its_pages(tmp_path: Path) -> None:
    done = render(
        *("--to", str(tmp_path), "--language", "zh-Hans", "--timezone", "Asia/Shanghai"),
        *("--pages", "https://fleet.example/"),
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "dashboards").iterdir()] == ["zh-Hans"]
    board = json.loads((tmp_path / "dashboards/zh-Hans/device.json").read_text(encoding="utf-8"))
    assert board["timezone"] == "Asia/Shanghai"
    assert "https://fleet.example/devices/${device}" in json.dumps(board)
    assert "zh-Hans" in (tmp_path / "provisioning/dashboards/fieldfleet.yaml").read_text(encoding="utf-8")


def test_a_zone_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    done = render("--to", str(tmp_path), "--timezone", "Asia/Peking-West")
    assert done.returncode == 2
    assert "got 'Asia/Peking-West'" in done.stderr
    assert list(tmp_path.iterdir()) == []

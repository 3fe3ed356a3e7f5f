import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.deploy.files import DEPLOY, ROOT, services

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


def _copied(stage: str) -> list[str]:
    """What a stage copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(?:--chmod=\S+ )?(.+) \S+$", stage, re.MULTILINE)
    return [source for line in lines for source in line.split()]


def test_the_image_is_pinned_and_its_user_is_the_one_that_compose_names() -> None:
    assert all(re.match(r"python:3\.11\.\d+-slim-bookworm\b", stage) for stage in STAGES)
    (user,) = re.findall(r"^USER (\S+)$", STAGES[-1], re.MULTILINE)
    assert user == services()["fleet-server"]["user"] == services()["init"]["user"]


def test_its_command_is_the_services() -> None:
    (command,) = re.findall(r"^CMD \[(.+)\]$", STAGES[-1], re.MULTILINE)
    assert command.replace('"', "").split(", ") == services()["fleet-server"]["command"]


def test_everything_that_is_copied_is_there_and_let_through() -> None:
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"
    }
    sources = [source for stage in STAGES for source in _copied(stage)]
    assert set(sources) == let_through
    assert all((ROOT / source).exists() for source in sources)
    assert str((DEPLOY / "init-site.sh").relative_to(ROOT)) in sources


def test_what_is_copied_is_enough_to_build_all_that_runs(tmp_path: Path) -> None:
    for source in _copied(STAGES[0]):
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / "src" / source if copy is shutil.copytree else _made(tmp_path / "src"))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--wheel-dir", str(tmp_path), str(tmp_path / "src")),
        ],
        check=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("fieldfleet-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for needed in ("broker_config/device_classes/host.toml", "fleet_server/__main__.py", "edge_agent/__main__.py"):
        assert needed in inside


def _made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


def test_every_volume_of_ours_is_mounted_on_a_directory_that_its_user_owns() -> None:
    (made,) = re.findall(r"--mode=0700 \\\n\s+(.+)$", STAGES[-1], re.MULTILINE)
    mounted = {
        mount.split(":")[1]
        for service in services().values()
        if service["image"].startswith("fieldfleet:")
        for mount in service.get("volumes", [])
        if not mount.startswith("$")  # a directory of the machine's
    }
    assert mounted <= set(made.split())

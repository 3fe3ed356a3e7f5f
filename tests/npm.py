"""What npm installs for the tests: pinned, outside the repository, below ``$XDG_CACHE_HOME/fieldfleet``."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.servers import program

INSTALL_S_MAX: Final = 120


class NpmError(Exception):
    """npm did not install what the check needs; the message ends with what it said."""


def installed(packages: Mapping[str, str]) -> Path:
    """Where exactly these are, installed now or before.

    Raises:
        NpmError: they cannot be.
    """
    named = "_".join(f"{name.rpartition('/')[2]}-{version}" for name, version in packages.items())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldfleet"
    place = home / named
    if not place.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{named}.", dir=home))
        try:
            _install(packages, partial)
            partial.rename(place)
        except OSError:
            if not place.is_dir():  # another test worker may have been quicker
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place


def _install(packages: Mapping[str, str], directory: Path) -> None:
    npm = program("npm")
    if npm is None:
        raise NpmError("no npm on this machine")
    done = subprocess.run(
        [
            *(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"),
            *(f"{name}@{version}" for name, version in packages.items()),
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=INSTALL_S_MAX,
        check=False,
    )
    if done.returncode:
        raise NpmError(f"npm ended with {done.returncode}: {done.stderr[-2000:]}")

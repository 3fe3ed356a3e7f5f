"""Devices that nobody here wrote: Zephyr's SMP servers and MCUboot, as smpclient's source distribution brings them.

It is downloaded by pip, pinned by its hash, and kept outside the repository, below ``$XDG_CACHE_HOME/fieldfleet``.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

VERSION: Final = "7.3.0"
SHA256: Final = "86aa4bc1c621805d97f449793a4077f049aa88a98a1e916bf59423d072bd2a3b"
DOWNLOAD_S_MAX: Final = 300.0
_PREFIX: Final = "zephyr_4.4.0_smp_server_0eae053d_"


class PeersError(RuntimeError):
    """They could not be had, or are not those that were pinned."""


@functools.cache
def _folder() -> Path:
    """Where they are; fetched if they are not there yet, by one process at a time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldfleet"
    home.mkdir(parents=True, exist_ok=True)
    folder = home / f"smpclient-{VERSION}"
    with (home / f"smpclient-{VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    fresh = folder.with_suffix(".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "smpclient", f"smpclient=={VERSION}", "-d", str(fresh)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S_MAX, check=False)
    archive = fresh / f"smpclient-{VERSION}.tar.gz"
    if not archive.exists():
        raise PeersError(f"pip ended with {done.returncode}: {done.stderr[-1000:]}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise PeersError(f"expected SHA-256 {SHA256}, got {found}")
    wanted = f"smpclient-{VERSION}/tests/fixtures/smp-server/"
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(wanted):
                member.name = Path(member.name).name
                tar.extract(member, fresh, filter="data")
    archive.unlink()
    fresh.rename(folder)


def peer(name: str) -> Path:
    """The file of that name without its prefix, such as ``native_sim_udp.exe``."""
    return _folder() / f"{_PREFIX}{name}"

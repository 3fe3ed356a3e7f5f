"""``python -I -m edge_agent.install_release IMAGE PLACE``: makes a place for an agent of an image that was checked.

An image of the agent is a tar, compressed or not, of what ``pip install --target`` makes: the packages as they are
imported. So nothing is built on the device, nothing is fetched, and every byte of it was signed.

The place is made beside, tried by having its interpreter import the agent, and put where it belongs at the end; what
was there before is gone then. Exit codes: 0 it is there; 1 it could not be made, nothing has changed; 2 wrong usage.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

FILES_MAX: Final = 20_000
BYTES_MAX: Final = 512 * 1024 * 1024
"""Of all files of an image, unpacked."""
TRIAL_S_MAX: Final = 120.0
SAID_MAX: Final = 500


class BadImageError(Exception):
    """It is no image of an agent that starts here; says why."""


def bounded(members: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    """*members*, so long as they are files and directories within the bounds. Raises BadImageError."""
    files = size = 0
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise BadImageError(f"{member.name!r}: expected files and directories only")
        files, size = files + 1, size + member.size
        if files > FILES_MAX or size > BYTES_MAX:
            raise BadImageError(f"expected at most {FILES_MAX} files of {BYTES_MAX} bytes together, got more")
        yield member


def install(image: Path, place: Path) -> None:
    """Make *place* of *image*. Raises BadImageError, OSError: it is as it was."""
    beside = place.with_name(f"{place.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    venv.create(beside, symlinks=True)
    packages = beside / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    try:
        with tarfile.open(image) as tar:
            # "data" refuses what leads elsewhere, and takes owners and odd modes away
            for member in bounded(tar):
                tar.extract(member, packages, filter="data")
    except tarfile.TarError as error:
        raise BadImageError(f"expected a tar of an agent's packages: {error}") from error
    _try(beside / "bin" / "python")
    os.sync()
    shutil.rmtree(place, ignore_errors=True)
    beside.replace(place)
    os.sync()


def _try(python: Path) -> None:
    """Whether an agent is there that starts. Raises BadImageError."""
    try:
        told = subprocess.run(  # noqa: S603 - the interpreter that was just made
            [python, "-I", "-m", "edge_agent", "--help"],
            check=False,
            capture_output=True,
            timeout=TRIAL_S_MAX,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise BadImageError(f"its agent does not start within {TRIAL_S_MAX:g} s") from error
    if told.returncode:
        raise BadImageError(f"its agent does not start: {told.stderr.decode(errors='replace').strip()[-SAID_MAX:]}")


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring for the exit codes."""
    given = list(sys.argv[1:] if argv is None else argv)
    if len(given) != 2:
        print("usage: python -I -m edge_agent.install_release IMAGE PLACE", file=sys.stderr)
        return 2
    try:
        install(Path(given[0]), Path(given[1]))
    except (BadImageError, OSError) as error:
        print(str(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

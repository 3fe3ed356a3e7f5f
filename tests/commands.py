"""Programs as an operator runs them, each as a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
ENDS_S_MAX: Final = 60.0


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m module``, however it ends."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ENDS_S_MAX,
        check=False,
    )


def told(module: str, *arguments: str) -> str:
    """What it says on stdout; it must end well."""
    done = run(module, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fieldfleet(site: Path, *arguments: str) -> str:
    """What ``fieldfleet`` says of the site whose directory is *site*; it must end well."""
    return told("fleet_server.cli", *arguments, "--site", str(site))

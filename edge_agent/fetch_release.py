"""``edge-agent fetch-release PATH --config agent.toml --installed N``: an image, signed and checked, on the disk.

A short-lived child of the agent, so that the agent itself needs neither python-tuf nor a library for signatures, and
bounded, because what it reads was written by strangers. Exit codes: 0 it is there, 1 not now (asked again it goes on
where it was), 3 the configuration is wrong, 5 refused, with the name of the attack.
"""

import argparse
import fcntl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from broker_config.enrolment import SessionRequest, session_proof
from broker_config.ids import ContractError
from broker_config.limits import KIB, RELEASE_BYTES_MAX, RELEASE_ROOT_BYTES_MAX
from broker_config.releases import ImageKind, hardware, target_path
from edge_agent import config
from edge_agent.adapters import x509
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from edge_agent.adapters.release_client import BadRootError, fetch
from edge_agent.adapters.release_fetcher import HttpsFetcher, NotNowError, ReleaseFetcher
from edge_agent.adapters.release_relayed import Pipe, RelayedFetcher, std_pipe
from edge_agent.config import ConfigError, EnrolmentTable, Over, Settings
from edge_agent.identity import Pair
from edge_agent.releases import USUAL, Answer, Fetched, Pace, RefusedReleaseError, Wanted, check_clock
from firmware_bridge.bounded import bound_myself

FETCHED: Final = 0
NOT_NOW: Final = 1
BAD_CONFIG: Final = 3
REFUSED: Final = 5
DIRECTORY: Final = "releases"
LOCK: Final = "lock"
OVER_MQTT: Final = "mqtt://broker"
"""Before the paths; nothing is resolved."""
MEMORY_BYTES_MAX: Final = 256 * KIB * KIB
"""Of address space: libraries map far more than they touch."""
OTHERS: Final = 0o077


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def fetch_release(
    settings: Settings,
    wanted: Wanted,
    *,
    pace: Pace = USUAL,
    now_ms: Callable[[], int] = _now_ms,
    pipe: Pipe | None = None,
) -> Fetched:
    """Fetch what is *wanted*; *pipe*: over MQTT, by way of the agent that runs.

    Raises:
        RefusedReleaseError, NotNowError: see there.
        ConfigError: this device is told nobody's releases, or its root is not what it should be.
    """
    table, root_file = settings.file.enrolment, settings.release_root_file
    if root_file is None or (table is None and pipe is None):
        raise ConfigError(
            ["releases: expected [enrolment] and [releases] with root_file; enrol, or see docs/releases.md"]
        )
    check_clock(now_ms(), wanted.not_before_ms)
    directory = settings.state_dir / DIRECTORY
    try:
        root = _root(root_file)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        url, fetcher = (
            (OVER_MQTT, RelayedFetcher(pipe, pace)) if pipe is not None else _over_https(settings, table, pace)
        )
        with (directory / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fetch(directory, root, url, fetcher, wanted)
    except BadRootError as error:
        raise ConfigError([f"releases.root_file: {error}"]) from error
    except BlockingIOError as error:
        raise NotNowError("another one fetches a release") from error
    except (OSError, EnrolmentError) as error:
        raise NotNowError(str(error)) from error


def _over_https(settings: Settings, table: EnrolmentTable | None, pace: Pace) -> tuple[str, ReleaseFetcher]:
    assert table is not None, "the caller has looked"
    listener = Listener(table.url, settings.ca_file)
    return listener.url, HttpsFetcher(listener, lambda: _session(settings, listener), pace)


def _root(path: Path) -> bytes:
    if path.stat().st_mode & OTHERS:
        raise BadRootError(f"expected mode 0600 of {path.name}, others may read or write it")
    with path.open("rb") as file:
        return file.read(RELEASE_ROOT_BYTES_MAX + 1)


def _session(settings: Settings, listener: Listener) -> str:
    """With the pair that counts now. Raises NotNowError."""
    own = Pair(settings.cert_file, settings.key_file)
    try:
        nonce = listener.nonce()
        proof = x509.prove(own.key_file.read_bytes(), session_proof(nonce))
        leaf = x509.first(own.cert_file.read_bytes())
        return listener.session(SessionRequest(leaf, nonce, proof)).session
    except (EnrolmentError, OSError, x509.BadIdentityError) as error:
        raise NotNowError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent fetch-release",
        description="Fetch an image that was signed for this device, and check it.",
        epilog="example: edge-agent fetch-release mcu/dock-2/1.4.0.bin --config agent.toml --hw dock-2 "
        "--installed 11\n"
        "exit codes: 0 it is there; 1 not now, ask again; 2 wrong usage; 3 wrong configuration; 5 refused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", help="what is released, as `fleet-server releases list` names it")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="agent.toml")
    parser.add_argument("--hw", metavar="ID", help="what the image is to run on; this board if not given")
    parser.add_argument("--kind", choices=[each.value for each in ImageKind], help="as PATH begins if not given")
    parser.add_argument(
        "--installed", type=int, required=True, metavar="N", help="the release counter of what runs now; 0: unknown"
    )
    parser.add_argument("--not-before-ms", type=int, default=0, metavar="MS", help="the clock says no less than this")
    parser.add_argument(
        "--relayed", action="store_true", help="over MQTT; for the agent that starts this, with --json"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _wanted(arguments: argparse.Namespace, settings: Settings) -> Wanted:
    """Raises ConfigError: none of it can be."""
    own = "" if settings.file.releases is None else settings.file.releases.hardware
    try:
        path = target_path(arguments.path)
        kind = ImageKind(arguments.kind or path.partition("/")[0])
        hw = hardware(arguments.hw or own or settings.device_class.name)
        raw = Wanted(path, hw, kind, arguments.installed, arguments.not_before_ms)
        return msgspec.convert(msgspec.to_builtins(raw), Wanted)
    except (ContractError, msgspec.ValidationError) as error:
        raise ConfigError([str(error)]) from error


def _pipe(settings: Settings, *, relayed: bool) -> Pipe | None:
    """None: over HTTPS. Raises ConfigError: it can only be had by way of the agent."""
    if relayed:
        return std_pipe()
    if settings.file.releases is not None and settings.file.releases.over is Over.MQTT:
        raise ConfigError(
            ['releases.over: expected "https" for this command: over "mqtt" the agent that runs fetches']
        )
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring for the exit codes."""
    arguments = _parser().parse_args(argv)
    try:
        settings = config.load(arguments.config)
        pipe = _pipe(settings, relayed=arguments.relayed)
        fetched = fetch_release(settings, _wanted(arguments, settings), pipe=pipe)
    except ConfigError as error:
        for fault in error.faults:
            print(f"edge-agent: {fault}", file=sys.stderr)
        return BAD_CONFIG
    except RefusedReleaseError as error:
        return _ended(REFUSED, Answer(refused=error.refused), str(error), as_json=arguments.json)
    except NotNowError as error:
        return _ended(NOT_NOW, Answer(not_now=str(error)), str(error), as_json=arguments.json)
    if arguments.json:
        return _ended(FETCHED, Answer(fetched=fetched), "", as_json=True)
    print(f"{fetched.file}: version {fetched.version}, release counter {fetched.counter}, {fetched.size_bytes} bytes")
    return FETCHED


def _ended(code: int, answer: Answer, said: str, *, as_json: bool) -> int:
    if as_json:
        print(msgspec.json.encode(answer).decode())
    else:
        print(f"edge-agent: {said}", file=sys.stderr)
    return code


if __name__ == "__main__":
    bound_myself(memory_bytes=MEMORY_BYTES_MAX, file_bytes=RELEASE_BYTES_MAX + 1)
    sys.exit(main())

"""The agent's files beside its spool: the lock, the keys, the status, a spool that is set aside."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config import signing
from broker_config.mac import MacKey
from broker_config.signing import BadEnvelopeError, Roots
from edge_agent.identity import Pair, Remove, Write, follow

SPOOL_NAME: Final = "spool.db"
LOCK_NAME: Final = "agent.lock"
STATUS_NAME: Final = "status.json"
KEYS_BYTES_MAX: Final = 4096
SPOOL_PARTS: Final = ("", "-wal", "-shm", "-journal")

Key32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class StateDirBusyError(Exception):
    """Another agent uses the state directory."""


class BadKeysError(Exception):
    """The file of the device's keys is not what it should be."""


class _KeysFile(Struct, frozen=True, forbid_unknown_fields=True):
    kid: Annotated[str, Meta(min_length=1, max_length=64)]
    receipt: Key32
    time: Key32


class DeviceKeys(Struct, frozen=True):
    """What receipts, time answers and orders are checked with; without ``roots`` no order is right."""

    receipt: MacKey
    time: MacKey
    roots: Roots | None = None


def read_keys(path: Path) -> DeviceKeys:
    """Read the device's keys.

    Raises:
        BadKeysError: no file, another one's to read, or not the keys.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise BadKeysError(f"{path.name}: expected mode 0600, others may read or write it")
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(KEYS_BYTES_MAX), type=_KeysFile)
    except OSError as error:
        raise BadKeysError(f"{path.name}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        # the message names a field and a type, never a value
        raise BadKeysError(f"{path.name}: {error}") from error
    return DeviceKeys(MacKey(found.kid, bytes.fromhex(found.receipt)), MacKey(found.kid, bytes.fromhex(found.time)))


def read_signers(path: Path) -> Roots:
    """Read whose orders count. They are no secret, but whoever can write them commands the device.

    Raises:
        BadKeysError: no file, another one's to write, or no signers.
    """
    try:
        if path.stat().st_mode & 0o022:
            raise BadKeysError(f"{path.name}: expected mode 0644 or less, others may write it")
        with path.open("rb") as file:
            return signing.decode_roots(file.read(signing.ROOTS_BYTES_MAX + 1))
    except OSError as error:
        raise BadKeysError(f"{path.name}: {error.strerror or error}") from error
    except BadEnvelopeError as error:
        raise BadKeysError(f"{path.name}: {error}") from error


def read_all_keys(mac_file: Path, signers_file: Path | None) -> DeviceKeys:
    """Both files. Raises BadKeysError."""
    keys = read_keys(mac_file)
    return keys if signers_file is None else msgspec.structs.replace(keys, roots=read_signers(signers_file))


def lock(state_dir: Path) -> int:
    """Make *state_dir* if need be and hold it until the process ends; returns the descriptor.

    Raises:
        StateDirBusyError: another process holds it.
        OSError: it cannot be made.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StateDirBusyError(f"another agent uses {state_dir}") from None
    return descriptor


def set_aside(spool: Path) -> str:
    """Rename a damaged spool with its log, for somebody to look at; returns its new name. Raises OSError."""
    at = time.time_ns()
    for part in SPOOL_PARTS:
        source = spool.with_name(spool.name + part)
        if source.exists():
            source.rename(spool.with_name(f"{spool.name}.damaged-{at}{part}"))
    sync(spool.parent)
    return f"{spool.name}.damaged-{at}"


def write_status(state_dir: Path, status: bytes) -> None:
    """Replace the status file. Not synced: it is for who looks now, and worth nothing after a power cut."""
    temporary = state_dir / (STATUS_NAME + ".new")
    try:
        temporary.write_bytes(status)
        temporary.replace(state_dir / STATUS_NAME)
    except OSError:
        temporary.unlink(missing_ok=True)


def read_status(state_dir: Path) -> bytes | None:
    """What the last run wrote; None if nothing."""
    try:
        return (state_dir / STATUS_NAME).read_bytes()
    except OSError:
        return None


def write_durably(path: Path, data: bytes, mode: int) -> None:
    """Replace *path* by *data*, whole or not at all, readable by whom *mode* says from the first byte on.

    Raises:
        OSError: nothing has changed.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    sync(path.parent)


def carry_out(step: Write | Remove) -> None:
    """Do one step of a change of identity. Raises OSError."""
    if isinstance(step, Write):
        write_durably(step.path, step.data, step.mode)
    else:
        step.path.unlink(missing_ok=True)
        sync(step.path.parent)


def pairs(own: Pair) -> list[Pair]:
    """What to connect with, in this order: the next pair if it is whole, then the device's own."""
    return [pair for pair in (own.next, own) if pair is own or all(file.is_file() for file in pair)]


def certificate(pair: Pair) -> bytes:
    """The certificate of *pair*, in PEM; empty if it is not there (any more)."""
    try:
        return pair.cert_file.read_bytes()
    except OSError:
        return b""


@contextmanager
def changing(own: Pair, *, wait: bool = True) -> Iterator[None]:
    """Hold the identity: nobody else changes it meanwhile.

    Raises:
        BlockingIOError: somebody else holds it, and *wait* is false.
        OSError
    """
    descriptor = os.open(own.key_file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def settle(own: Pair, cert: bytes) -> bool:
    """The next pair, whose certificate is *cert*, has connected: it is the device's own now. False: another one is
    there meanwhile, of which nobody knows whether it connects; nothing has changed.

    Raises:
        BlockingIOError: a renewal holds the identity, for as long as it takes.
        OSError: still both are there.
    """
    with changing(own, wait=False):
        if not cert or certificate(own.next) != cert:
            return False
        follow_through(own)
        return True


def follow_through(own: Pair) -> None:
    """Let the next pair take the place of *own*, by who holds the identity. Raises OSError."""
    for step in follow(own, cert=own.next.cert_file.read_bytes(), key=own.next.key_file.read_bytes()):
        carry_out(step)


def sync(directory: Path) -> None:
    """Names that were given or taken in it become durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

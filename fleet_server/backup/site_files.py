"""Which files belong to a site: what lies in its directory, and what its configuration names elsewhere."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fleet_server import site as plan
from fleet_server.backup.manifest import FILES_MAX, OUTSIDE, SITE, BackupError
from fleet_server.config import Config

FILE_BYTES_MAX: Final = 1024 * 1024
"""What is larger is no file of a configuration."""
OTHERS: Final = 0o077
PASSING: Final = (".pid", ".sock", ".log", ".db", ".db-wal", ".db-shm")
"""What programs write while they run."""
DEVICES: Final = "devices"


@dataclass(slots=True)
class Gathered:
    """``files``: name in the backup (:data:`SITE` or :data:`OUTSIDE`, then its path) -> where it is."""

    files: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def base_of(config_file: Path) -> Path:
    """The site's directory if the configuration is in one as ``init`` made it, else the configuration's own."""
    own = config_file.resolve().parent
    return own.parent if (own.parent / plan.SITE_FILE).is_file() else own


def named(config: Struct) -> Iterator[Path]:
    """Every path that a configuration has."""
    for each in msgspec.structs.fields(config):
        value = getattr(config, each.name)
        if isinstance(value, Path):
            yield value
        elif isinstance(value, Struct):
            yield from named(value)


def gather(base: Path, config: Config, *, also: Sequence[Path], but: Sequence[Path]) -> Gathered:
    """*also*: directories elsewhere that belong to the site. *but*: what is no part of it.

    Raises:
        BackupError: there are too many.
        OSError: one cannot be looked at.
    """
    found = Gathered()
    stores = [config.state_dir, *but]
    if config.evidence is not None:
        stores += [config.evidence.directory, *([config.evidence.replica] if config.evidence.replica else [])]
    passed = {each.resolve() for each in stores}
    if (base / plan.SITE_FILE).is_file():
        passed.add((base / DEVICES).resolve())
    for directory in (base, *also):
        for path in _below(directory, passed):
            _add(found, path, base)
    for path in named(config):
        absolute = Path(os.path.normpath(path))
        if absolute.is_file() and not any(each in absolute.resolve().parents for each in passed):
            _add(found, absolute, base)
    return found


def target_of(name: str, base: Path) -> Path:
    """Where a file of that name in a backup belongs."""
    kind, _, path = name.partition("/")
    return base / path if kind == SITE else Path("/") / path


def is_secret(path: Path) -> bool:
    """Whether only its owner may read it."""
    return not path.stat().st_mode & OTHERS


def _below(directory: Path, passed: set[Path]) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        raise error

    for at, names, files in os.walk(directory, onerror=failed):
        names[:] = sorted(each for each in names if (Path(at) / each).resolve() not in passed)
        yield from (Path(at) / each for each in sorted(files))


def _add(found: Gathered, path: Path, base: Path) -> None:
    if path.name.endswith(PASSING) or not path.is_file():
        return
    size = path.stat().st_size
    if size > FILE_BYTES_MAX:
        found.left_out.append(f"{path}: {size} bytes, more than a file of a configuration has")
        return
    try:
        name = f"{SITE}/{path.relative_to(base)}"
    except ValueError:
        name = f"{OUTSIDE}/{path.relative_to('/')}"
    found.files[name] = path
    if len(found.files) > FILES_MAX // 2:
        raise BackupError(f"{base}: expected at most {FILES_MAX // 2} files of a site")


def mode_of(path: Path) -> int:
    """Its permissions, of its owner alone."""
    return stat.S_IMODE(path.stat().st_mode) & 0o700

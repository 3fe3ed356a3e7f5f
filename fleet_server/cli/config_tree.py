"""Settings as files of a directory: what the files want, and what of it the server has otherwise.

``fleet.toml``, ``classes/NAME.toml``, ``nodes/.../NAME.toml`` (in folders as the organisation is, if one likes),
``groups/NAME.toml``, ``devices/ID.toml``. Each has a table ``settings``; ``unset`` names settings that are to have
the class's default whatever layers before say. A group has ``priority`` and ``members`` besides.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from broker_config.text import shown

FILES_MAX: Final = 20_000
FILE_BYTES_MAX: Final = 64 * 1024
FAULTS_MAX: Final = 20
FLEET_FILE: Final = "fleet.toml"
KINDS: Final = ("classes", "nodes", "groups", "devices")
"""Folders, and levels of the API's paths; in the order in which they are written."""
SUFFIX: Final = ".toml"

Value: TypeAlias = bool | int | float | str


class TreeError(Exception):
    """The directory is not what it should be; one line a fault."""


class _Layer(Struct, frozen=True, forbid_unknown_fields=True):
    settings: dict[str, Value] = {}
    unset: tuple[str, ...] = ()


class _Group(_Layer, frozen=True, forbid_unknown_fields=True, kw_only=True):
    priority: int
    members: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """A file. ``path``: of its layer in the API, such as ``groups/night``; ``group``: priority and members of one."""

    path: str
    file: Path
    settings: Mapping[str, Value | None]
    group: tuple[int, frozenset[str]] | None = None

    @property
    def name(self) -> str:
        """Of the class, node, group or device."""
        return self.path.rpartition("/")[2]


class Change(NamedTuple):
    """What is otherwise: ``what`` is a setting, or ``priority`` or ``members`` of a group; as TOML has it."""

    path: str
    what: str
    before: str
    after: str


def read_tree(directory: Path) -> list[Wanted]:
    """Every file of it, groups before what is set for them. Raises TreeError."""
    out: list[Wanted] = []
    faults: list[str] = []
    found = list(_files(directory))
    if not found:
        raise TreeError(f"{directory}: expected {FLEET_FILE} or a folder of {', '.join(KINDS)} with {SUFFIX} files")
    if len(found) > FILES_MAX:
        raise TreeError(f"{directory}: expected at most {FILES_MAX} files, got {len(found)}")
    seen: dict[str, Path] = {}
    for path, file in found:
        if path in seen:
            faults.append(f"{file}: {seen[path]} is of the same name")
            continue
        seen[path] = file
        try:
            out.append(_wanted(path, file))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            faults.append(f"{file}: {shown(error)}")
    if faults:
        more = len(faults) - FAULTS_MAX
        raise TreeError("\n".join([*faults[:FAULTS_MAX], *([f"and {more} more"] if more > 0 else [])]))
    return out


def changes(
    wanted: Wanted, settings: Mapping[str, Value | None], group: tuple[int, frozenset[str]] | None
) -> list[Change]:
    """What *wanted* has otherwise than the server, which has *settings* and *group* (None: there is none)."""
    out: list[Change] = []
    if wanted.group is not None:
        priority, members = wanted.group
        if group is None or group[0] != priority:
            out.append(Change(wanted.path, "priority", "" if group is None else str(group[0]), str(priority)))
        held: frozenset[str] = frozenset() if group is None else group[1]
        out += [Change(wanted.path, "members", "", device) for device in sorted(members - held)]
        out += [Change(wanted.path, "members", device, "") for device in sorted(held - members)]
    for name in sorted(settings.keys() | wanted.settings.keys()):
        before, after = _text(settings, name), _text(wanted.settings, name)
        if before != after:
            out.append(Change(wanted.path, name, before, after))
    return out


def _text(settings: Mapping[str, Value | None], name: str) -> str:
    if name not in settings:
        return ""
    value = settings[name]
    return "unset" if value is None else msgspec.json.encode(value).decode()


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    if (directory / FLEET_FILE).is_file():
        yield "fleet", directory / FLEET_FILE
    for kind in KINDS:
        for file in sorted((directory / kind).rglob(f"*{SUFFIX}")):
            yield f"{kind}/{file.stem}", file


def _wanted(path: str, file: Path) -> Wanted:
    with file.open("rb") as opened:
        data = opened.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise msgspec.ValidationError(f"expected at most {FILE_BYTES_MAX} bytes")
    is_group = path.startswith("groups/")
    read: _Layer = msgspec.convert(tomllib.loads(data.decode()), _Group if is_group else _Layer)
    both = read.settings.keys() & set(read.unset)
    if both:
        raise msgspec.ValidationError(f"{', '.join(sorted(both))}: expected in settings or in unset")
    settings = {**read.settings, **dict.fromkeys(read.unset)}
    group = (read.priority, frozenset(read.members)) if isinstance(read, _Group) else None
    return Wanted(path, file, settings, group)

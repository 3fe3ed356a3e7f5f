"""``[uploads]`` of agent.toml: which folders hold files to upload, and how they are kept. Without one, none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from broker_config.device_classes import DeviceClass
from broker_config.text import shown
from edge_agent.link_rules import Limit, Link

HOLD_H_MIN: Final = 72.0
FOLDERS_DIR: Final = "files"
"""Under the state directory, where a folder's place is not told."""

Seconds = Annotated[float, Meta(ge=0.05, le=86_400)]


class Folder(Struct, frozen=True, forbid_unknown_fields=True):
    """``[uploads.folders.CLASS]``, a file class of the device class.

    ``folder`` empty: ``files/CLASS`` in the state directory. ``closed``: a file is, as soon as it has its name
    (``renamed``), or when it has not changed for ``quiet_s`` (``quiet``). ``receipt_class``: what a receipt must
    vouch for before the file may be deleted.
    """

    folder: Annotated[str, Meta(max_length=4096)] = ""
    closed: Literal["renamed", "quiet"] = "renamed"
    quiet_s: Seconds = 10.0
    receipt_class: Literal["stored", "replicated", "logged"] = "logged"


class Uploads(Struct, frozen=True, forbid_unknown_fields=True):
    """``[uploads]``.

    ``hold_h``: a receipted file stays so long. ``bytes_max``: of all folders; 0: what the disk has.
    ``reserve_bytes``: with less room than this what is receipted goes sooner, and then less urgent files are not to
    be written. ``abnormal_s``: a recording of which nothing more came for so long has ended. ``link``: what kind of
    link this is, for the limits; ``link_file``: where the board writes it, if it changes.
    """

    folders: Annotated[dict[str, Folder], Meta(max_length=16)] = {}
    limits: Annotated[dict[str, Limit], Meta(max_length=16)] = {}
    hold_h: Annotated[float, Meta(ge=HOLD_H_MIN, le=87_600)] = 168.0
    bytes_max: Annotated[int, Meta(ge=0)] = 0
    reserve_bytes: Annotated[int, Meta(ge=0)] = 268_435_456
    look_s: Seconds = 1.0
    abnormal_s: Seconds = 60.0
    link: Link = ""
    link_file: Annotated[str, Meta(max_length=4096)] = ""


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """``paths``: file class -> where its files lie; the rest as the table has it."""

    table: Uploads
    paths: Mapping[str, Path]


def placed(
    table: Uploads, device_class: DeviceClass, base: Path, state_dir: Path, faults: list[str]
) -> UploadSettings | None:
    """With folders made absolute; None if none is told. Appends each fault to *faults*."""
    paths: dict[str, Path] = {}
    for name, folder in table.folders.items():
        if name not in device_class.files:
            known = ", ".join(device_class.files) or "none"
            faults.append(f"uploads.folders.{shown(name)}: unknown; {device_class.name} has {known}")
        path = base / folder.folder if folder.folder else state_dir / FOLDERS_DIR / name
        if path.resolve() in {other.resolve() for other in paths.values()}:
            faults.append(f"uploads.folders.{shown(name)}.folder: {shown(folder.folder)} is used twice")
        paths[name] = path
    return UploadSettings(table, paths) if paths else None

"""What a device is answered that asks over the broker, from the same port that the devices' listener gives from."""

from pathlib import Path

from broker_config.release_chunks import METADATA, TARGETS, AskRelease, Part, encode_part, parts_of
from fleet_server.releases.store import Releases


def answer(releases: Releases, ask: AskRelease) -> list[bytes]:
    """The messages, in order; at least one. May wait for the disk. Raises OSError."""
    found = _window(releases, ask)
    if found is None:
        return [encode_part(Part(ask.id, ask.offset, 0, b"", absent=True))]
    size, data = found
    return [encode_part(part) for part in parts_of(ask, size, data)]


def _window(releases: Releases, ask: AskRelease) -> tuple[int, bytes] | None:
    """The file's size, and what it has of the window; None: there is no such file."""
    if ask.path.startswith(METADATA):
        whole = releases.metadata(ask.path.removeprefix(METADATA))
        return None if whole is None else (len(whole), whole[ask.offset : ask.offset + ask.length])
    path = releases.image(ask.path.removeprefix(TARGETS))
    return None if path is None else _read(path, ask)


def _read(path: Path, ask: AskRelease) -> tuple[int, bytes]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(ask.offset)
        return size, file.read(ask.length)

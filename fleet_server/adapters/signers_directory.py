"""``signers.json``, and beside it the signed steps that led to it: ``signers/2.json``, ``signers/3.json``, ...

A step is durable before ``signers.json`` follows it, and whoever reads goes on from that file along the steps: a
power cut between the two leaves the new version in place. Nothing here is secret, and devices check all of it again.
"""

from pathlib import Path
from typing import Final, NamedTuple

from broker_config import signing
from broker_config.signing import ROOTS_BYTES_MAX, Envelope, Roots
from broker_config.trust import ROTATIONS_MAX, STEP_BYTES_MAX, STEPS_MAX
from fleet_server.access import signers
from fleet_server.adapters.files import write_durably

SIGNERS_MODE: Final = 0o644
"""Public: only its change has to be prevented."""
DIRECTORY_MODE: Final = 0o755


class Current(NamedTuple):
    """``data``: the bytes of ``signers.json`` as a device is given it."""

    roots: Roots
    data: bytes


class SignersDirectory:
    """Of one site. Written by commands alone, one at a time."""

    def __init__(self, signers_file: Path) -> None:
        self._file = signers_file
        self._steps = signers_file.with_suffix("")

    def current(self) -> Current:
        """The newest version. Raises OSError, BadEnvelopeError, RefusedError: a step that does not follow."""
        data = _read(self._file, ROOTS_BYTES_MAX)
        now = Current(signing.decode_roots(data), data)
        for _ in range(ROTATIONS_MAX):
            step = self._step(now.roots.version + 1)
            if step is None:
                break
            roots = signers.follow(now.roots, step)
            now = Current(roots, signing.encode(roots))
        return now

    def after(self, version: int) -> tuple[str, ...]:
        """The steps from *version* on, without holes: at least one if there is any, and as many as one answer holds.
        Raises OSError.
        """
        found: list[str] = []
        size = 0
        while len(found) < STEPS_MAX and (step := self._step(version + 1 + len(found))) is not None:
            size += len(step)
            if found and size > STEP_BYTES_MAX:
                break
            found.append(step.decode("utf-8", "replace"))
        return tuple(found)

    def adopt(self, step: Envelope) -> Roots:
        """Put a step with enough signatures in place; durable once it returns, and whole or not.

        Raises:
            RefusedError: it does not follow, or too few have signed it; nothing has changed.
            OSError, BadEnvelopeError: the files cannot be read or written.
        """
        now = self.current()
        data = signing.encode(step)
        roots = signers.follow(now.roots, data)
        self._steps.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        write_durably(self._steps / f"{roots.version}.json", data, mode=SIGNERS_MODE)
        write_durably(self._file, step.payload, mode=SIGNERS_MODE)
        return roots

    def replace(self, roots: Roots) -> None:
        """Of a site where nobody may sign a change: only who enrols from now on hears of it. Raises OSError."""
        write_durably(self._file, signing.encode(roots) + b"\n", mode=SIGNERS_MODE)

    def signed_by(self, version: int) -> tuple[str, ...]:
        """The key ids that a step names; empty if there is none. Raises OSError, BadEnvelopeError."""
        step = self._step(version)
        return () if step is None else tuple(each.keyid for each in signing.decode_envelope(step).signatures)

    def _step(self, version: int) -> bytes | None:
        try:
            return _read(self._steps / f"{version}.json", STEP_BYTES_MAX)
        except FileNotFoundError:
            return None


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        return file.read(bytes_max + 1)

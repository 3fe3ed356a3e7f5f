"""The master keys and the signers as they are on the disk now, for the server that runs: it looks at the files again
whenever they have changed, and records each change in the audit log.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Lock
from typing import Final

from broker_config.ids import ContractError, DeviceId
from broker_config.mac import MacKey, Purpose
from broker_config.signing import Kind
from broker_config.text import shown
from fleet_server.access.audit import Draft
from fleet_server.access.auditor import own_fact
from fleet_server.access.keys import MasterKey, MasterKeys, derive
from fleet_server.access.signing import SignerError
from fleet_server.adapters.files import write_durably
from fleet_server.adapters.signers_directory import Current, SignersDirectory

LOOK_S: Final = 2.0
NOTED_FILE: Final = "trust.noted"
"""What was recorded last: after a restart only what is new is recorded."""
SIGNERS_CHANGE: Final = "signers.change"
MAC_CHANGE: Final = "mac_key.change"

logger = logging.getLogger(__name__)


class Trusted:
    """Any thread may call. A file that cannot be read leaves things as they were."""

    def __init__(self, master_file: Path, signers_file: Path | None) -> None:
        """*signers_file* None: devices are told nobody's. Raises OSError, BadMasterKeyError, UnicodeDecodeError."""
        self._master_file = master_file
        there = signers_file is not None and signers_file.is_file()
        self._directory = SignersDirectory(signers_file) if signers_file is not None and there else None
        self._lock = Lock()
        self._keys = self._read_keys()
        self._signers: Current | None = None
        self._failing = False
        self.look()

    def master(self) -> MasterKey:
        """The current one."""
        return self._keys.current

    def mac_key(self, purpose: Purpose, device: DeviceId, kid: str) -> MacKey:
        """Of the master key *kid* that the device says it has; of the current one if that is none of ours."""
        return derive(self._keys.of(kid), purpose, device)

    def signers_json(self) -> str:
        """What a device that enrols is given; empty if there are no signers."""
        return "" if self._signers is None else self._signers.data.decode()

    def signers_of(self, kind: Kind) -> tuple[str, ...]:
        """Whose signatures of *kind* count, ``KEYID ALGORITHM BASE64``."""
        holders = {} if self._signers is None else self._signers.roots.holders(kind)
        return tuple(
            f"{each.keyid} {each.algorithm} {base64.b64encode(each.public).decode()}" for each in holders.values()
        )

    def steps(self, version: int) -> tuple[str, ...]:
        """See :meth:`SignersDirectory.after`."""
        return () if self._directory is None else self._directory.after(version)

    def newest(self) -> tuple[int, str]:
        """The version of the signers, 0 if none, and the key id of the current master key."""
        signers = self._signers
        return 0 if signers is None else signers.roots.version, self._keys.current.kid

    def look(self) -> None:
        """Read what there is now."""
        try:
            keys = self._read_keys()
            signers = None if self._directory is None else self._directory.current()
        except (OSError, ContractError, SignerError, UnicodeDecodeError) as error:
            log = logger.debug if self._failing else logger.error
            log("keys or signers cannot be read; what was read before counts", extra={"why": shown(error)})
            self._failing = True
            return
        with self._lock:
            self._keys, self._signers, self._failing = keys, signers, False

    def run(self, stop: Event, record: Callable[[Draft], object], state_dir: Path, now_ms: Callable[[], int]) -> None:
        """Look until *stop*; *record* a fact of each change."""
        noted = state_dir / NOTED_FILE
        while True:
            self.look()
            try:
                self._note(noted, record, now_ms())
            except Exception as error:  # noqa: BLE001 - a log that takes nothing now is asked again
                logger.warning("not recorded yet: a change of keys or signers", extra={"why": shown(error)})
            if stop.wait(LOOK_S):
                return

    def _note(self, noted: Path, record: Callable[[Draft], object], at_ms: int) -> None:
        facts = self._facts()
        seen = noted.read_text("utf-8").splitlines() if noted.is_file() else []
        new = {line: fact for line, fact in facts.items() if line not in seen}
        for action, subject, data in new.values():
            record(own_fact(action, subject, at_ms=at_ms, data=data))
        if new:
            write_durably(noted, "".join(f"{line}\n" for line in facts).encode())

    def _facts(self) -> Mapping[str, tuple[str, str, Mapping[str, str]]]:
        """A line that names what there is -> the fact that tells of it. Facts may be told twice, never less."""
        keys, signers = self._keys, self._signers
        kids = " ".join(key.kid for key in keys.formers)
        found: dict[str, tuple[str, str, Mapping[str, str]]] = {
            f"mac {keys.current.kid} {kids}": (MAC_CHANGE, keys.current.kid, {"formers": kids})
        }
        if signers is not None and self._directory is not None:
            version, digest = signers.roots.version, hashlib.sha256(signers.data.strip()).hexdigest()
            data = {
                "version": str(version),
                "keyids": " ".join(each.keyid for each in signers.roots.signers),
                "signed_by": " ".join(self._directory.signed_by(version)),
                "sha256": digest,
            }
            found[f"signers {version} {digest}"] = (SIGNERS_CHANGE, str(version), data)
        return found

    def _read_keys(self) -> MasterKeys:
        return MasterKeys.parse(self._master_file.read_text(encoding="ascii"))

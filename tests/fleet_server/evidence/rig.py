"""Custody over a database: index, acts, deletions, and a folder of contents."""

import hashlib
import time
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from broker_config.signing import ED25519
from fleet_server.access import audit
from fleet_server.access.auditor import Auditor
from fleet_server.access.signing import Issuer, Policy
from fleet_server.adapters.bundle_zip import zipped
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.custody import CustodyLog
from fleet_server.adapters.sql.deletions import SqlDeletions
from fleet_server.adapters.sql.dispatches import SqlDispatches
from fleet_server.adapters.sql.items import SqlItems
from fleet_server.adapters.sql.keeping import SqlKeeping
from fleet_server.adapters.sql.pieces import SqlPieces
from fleet_server.adapters.sql.retention import SqlRetention
from fleet_server.adapters.sql.scrubs import SqlScrubs
from fleet_server.adapters.sql.timestamps import SqlTimestamps
from fleet_server.api.evidence import Evidence
from fleet_server.evidence import receipting
from fleet_server.evidence.bundle import Trust
from fleet_server.evidence.custodian import Custodian, Settings
from fleet_server.evidence.exporting import Sources
from fleet_server.evidence.scrub import Scrubber
from fleet_server.outbound.happenings import News
from tests.fleet_server.access.drafts import SIGNER, SITE
from tests.fleet_server.evidence.arrivals import DAY_MS, T0, Folder, arrival
from tests.orders import SERVER, FixedKey, RealSigner

OF_RECEIPTS: Final = f"{SERVER.keyid} {ED25519} {b64encode(SERVER.public).decode()}"
TRUST: Final = Trust((), SIGNER.verifier.text(), signers=(OF_RECEIPTS,))


class Batches:
    """Devices' journals: (device, life) -> payloads from number 1 on."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], list[bytes]] = {}

    def journal(self, device: str, life: str, *, first: int, last: int) -> list[tuple[int, bytes]]:
        numbered = enumerate(self.held.get((device, life), []), 1)
        return [(number, payload) for number, payload in numbered if first <= number <= last]


class Custody:
    """Of a database that is migrated. ``now_ms`` may be set."""

    def __init__(self, engine: Engine, directory: Path, auditor: Auditor | None = None) -> None:
        self.now_ms = T0
        self.engine = engine
        self.auditor = auditor or Auditor(SqlAudit(engine), SIGNER, SITE, now_ms=lambda: self.now_ms)
        if auditor is None:
            self.auditor.start()
        self.content = Folder(directory / "content")
        self.log = CustodyLog(engine, self.auditor)
        self.pieces = SqlPieces(self.log, self.content)
        self.keeping = SqlKeeping(self.log)
        self.retention = SqlRetention(self.log, self.pieces)
        self.deletions = SqlDeletions(self.log, a_day_max=3)
        self.items = SqlItems(self.log)
        self.dispatches = SqlDispatches(self.log)
        self.scrubs = SqlScrubs(self.log)
        self.timestamps = SqlTimestamps(engine)
        self.journals = Batches()
        self.signer = RealSigner(Issuer(FixedKey(SERVER), Policy(SITE), last=0, reserve=lambda _counter: None))
        self.news: list[News] = []
        copies = [self.content]
        scrubber = Scrubber(
            self.pieces, self.scrubs, copies, bytes_a_second=10**9, now_ms=lambda: time.time_ns() // 1_000_000
        )
        self.custodian = Custodian(
            self.pieces,
            self.deletions,
            self.retention,
            scrubber,
            copies,
            Settings(scrub_hour=2),
            tell=self.news.extend,
            now_ms=lambda: self.now_ms,
            hour_of=lambda _: 12,
        )

    def ports(self) -> Evidence:
        """As the API takes them."""
        delay_ms = 7 * DAY_MS
        return Evidence(
            self.pieces,
            self.keeping,
            self.deletions,
            self.retention,
            self.items,
            self.dispatches,
            self.content,
            self.custodian,
            delay_ms,
            Sources(
                self.journals,
                lambda: TRUST,
                zipped,
                receipting.for_bundle(self.signer, [self.content], life_ms=60_000),
                self.timestamps,
            ),
        )

    def entered(self, data: bytes | None = None, **fields: Any) -> str:
        """A piece that has arrived; its name."""
        come = arrival(self.content, data, **fields)
        self.pieces.verified(come)
        return come.upload

    def rule(self, name: str, keep_d: int | None, *, at_ms: int = T0) -> None:
        """A retention that two people agreed to."""
        change = self.retention.propose(name, keep_d, "order 12", by="ann", now_ms=at_ms - 8 * 86_400_000)
        self.retention.approve(change.change, by="ben", now_ms=at_ms - 8 * 86_400_000)

    def events(self, subject: str) -> list[audit.Entry]:
        """Checked: numbers without holes, each holding the digest of the one before."""
        found = self.log.history(subject, from_number=0, rows_max=10_000)
        prev = audit.GENESIS
        read = []
        for number, each in enumerate(found):
            entry = audit.read(each.raw)
            assert (entry.subject, entry.data["number"], entry.data["prev"]) == (subject, str(number), prev)
            assert (entry.log, entry.index) == (each.log, each.entry)
            if each.note is not None:
                digest = hashlib.sha256(f"{each.salt}\0{each.note}".encode()).hexdigest()
                assert entry.data["note_sha256"] == digest
            prev = hashlib.sha256(each.raw).hexdigest()
            read.append(entry)
        return read

    def told(self, subject: str) -> list[str]:
        """What happened to it."""
        return [entry.action.partition(".")[2] for entry in self.events(subject)]

"""Wires custody: the index of what arrived, acts on it, what the server does with it by itself, and timestamps."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Engine

from fleet_server.access.auditor import Auditor
from fleet_server.access.signing import Signer
from fleet_server.access.timestamps import Stamper
from fleet_server.adapters.bundle_zip import zipped
from fleet_server.adapters.sql.custody import CustodyLog
from fleet_server.adapters.sql.deletions import SqlDeletions
from fleet_server.adapters.sql.dispatches import SqlDispatches
from fleet_server.adapters.sql.items import SqlItems
from fleet_server.adapters.sql.keeping import SqlKeeping
from fleet_server.adapters.sql.pieces import SqlPieces
from fleet_server.adapters.sql.retention import SqlRetention
from fleet_server.adapters.sql.scrubs import SqlScrubs
from fleet_server.adapters.sql.timestamps import SqlTimestamps
from fleet_server.api.evidence import Evidence as EvidencePorts
from fleet_server.config import Evidence
from fleet_server.evidence import receipting
from fleet_server.evidence.bundle import Trust
from fleet_server.evidence.content import Content
from fleet_server.evidence.custodian import Custodian, Settings, Tell
from fleet_server.evidence.exporting import Journals, Sources
from fleet_server.evidence.retention import DAY_MS
from fleet_server.evidence.scrub import Scrubber

STOP_S: Final = 5.0


class Custody:
    """Made, started, stopped, in this order. ``pieces``: where what arrives is entered."""

    def __init__(
        self,
        table: Evidence,
        engine: Engine,
        auditor: Auditor,
        copies: Sequence[Content],
        journals: Journals,
        *,
        roots: Sequence[str],
        signer: Signer,
        receipt_life_ms: int,
        signers: Callable[[], Sequence[str]],
        tell: Tell,
        now_ms: Callable[[], int],
    ) -> None:
        """*copies*: the first is where originals are. *roots*: of devices, PEM, and *signers* (:class:`Trust`), as
        exports name them. Raises OSError, ValueError: the file of the timestamps' authority cannot be used.
        """
        log = CustodyLog(engine, auditor)
        self.pieces = SqlPieces(log, copies[0])
        self.timestamps = SqlTimestamps(engine)
        retention = SqlRetention(log, self.pieces, delay_ms=int(table.retention_delay_d * DAY_MS))
        delay_ms = int(table.deletion_delay_d * DAY_MS)
        deletions = SqlDeletions(log, delay_ms=delay_ms, a_day_max=table.deletions_a_day_max)
        scrubs, bytes_a_second = SqlScrubs(log), table.scrub_bytes_s_max
        scrubber = Scrubber(self.pieces, scrubs, copies, bytes_a_second=bytes_a_second, now_ms=now_ms)
        custodian = Custodian(
            self.pieces,
            deletions,
            retention,
            scrubber,
            copies,
            Settings(table.scrub_hour),
            tell=tell,
            now_ms=now_ms,
            hour_of=_hour,
        )
        tsa = () if table.tsa_ca_file is None else (table.tsa_ca_file.read_text(encoding="ascii"),)
        receipts = receipting.for_bundle(signer, copies, life_ms=receipt_life_ms)
        self.evidence = EvidencePorts(
            self.pieces,
            SqlKeeping(log),
            deletions,
            retention,
            SqlItems(log),
            SqlDispatches(log),
            copies[0],
            custodian,
            delay_ms,
            Sources(
                journals,
                lambda: Trust(tuple(roots), auditor.verifier.text(), tsa, signers=tuple(signers())),
                zipped,
                receipts,
                self.timestamps,
            ),
        )
        self._stamper = _stamper(table, auditor, self.timestamps, now_ms)
        self._stamp_s = table.timestamp_every_s
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=custodian.run, args=(self._stopping,), name="custodian", daemon=True),
            threading.Thread(target=custodian.run_scrubs, args=(self._stopping,), name="scrub", daemon=True),
        ]
        if self._stamper is not None:
            self._threads.append(threading.Thread(target=self._stamp, name="timestamps", daemon=True))

    def also(self, name: str, run: Callable[[threading.Event], None]) -> None:
        """Something more that looks after it, in a thread of its own; to be said before :meth:`start`."""
        self._threads.append(threading.Thread(target=run, args=(self._stopping,), name=name, daemon=True))

    def start(self) -> None:
        """Look after it."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """In order; a scrub that runs is left off."""
        self._stopping.set()
        self.evidence.custodian.end_scrubs()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(STOP_S)

    def _stamp(self) -> None:
        assert self._stamper is not None
        while True:
            self._stamper.look()
            if self._stopping.wait(self._stamp_s):
                return


def _stamper(
    table: Evidence, auditor: Auditor, timestamps: SqlTimestamps, now_ms: Callable[[], int]
) -> Stamper | None:
    if not table.tsa_url:
        return None
    from fleet_server.adapters.tsa import HttpAuthority  # noqa: PLC0415 - a library only if wanted

    return Stamper(auditor, timestamps, HttpAuthority(table.tsa_url, roots_file=table.tsa_ca_file), now_ms=now_ms)


def _hour(now_ms: int) -> int:
    """Of this machine's day."""
    return time.localtime(now_ms // 1000).tm_hour

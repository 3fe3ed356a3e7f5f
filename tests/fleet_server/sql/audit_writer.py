"""Appends to an audit log until it is killed, and says after each entry how many there are."""

import sys
from pathlib import Path

from fleet_server.access.auditor import Auditor
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from tests.fleet_server.access.drafts import LOG, SIGNER, SITE, draft


def main() -> None:
    store = SqlAudit(database.connect(database.sqlite_url(Path(sys.argv[1]))))
    auditor = Auditor(store, SIGNER, SITE, now_ms=lambda: LOG)
    auditor.start()
    number = 0
    while True:
        number += 1
        print(store.append([draft(number)]).size, flush=True)
        if number % 7 == 0:
            auditor.sign()


if __name__ == "__main__":
    main()

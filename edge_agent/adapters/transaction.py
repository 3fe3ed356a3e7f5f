"""A transaction of one of the agent's SQLite files, and the steps at which a test may end the process."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

Failpoint = Callable[[str], None]
"""Called with the name of each step; a test may end the process there."""


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, failpoint: Failpoint) -> Iterator[None]:
    """All or nothing; durable when it is left. Raises sqlite3.Error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        failpoint("commit")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    failpoint("committed")

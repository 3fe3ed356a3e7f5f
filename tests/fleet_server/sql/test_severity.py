"""A database of before alerts: what happened then has the severity of its kind."""

from alembic import command
from sqlalchemy import Engine, text

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.outbound.happenings import SEVERITY, Kind, Severity
from fleet_server.outbound.store import Filter


def test_what_happened_before_has_the_severity_of_its_kind(engine: Engine) -> None:
    kinds = [kind for kind in Kind if not kind.startswith("alert.")]
    with engine.connect() as connection:
        command.upgrade(database._alembic(connection), "0012")
        connection.commit()
        for kind in kinds:
            said = "INSERT INTO happening (at_ms, kind, device, device_class, org, data)"
            said += " VALUES (1, :kind, '', '', '', '{}')"
            connection.execute(text(said), {"kind": kind.value})
        connection.commit()
    database.migrate(engine)
    feed = SqlFeed(engine)
    for severity in Severity:
        page = feed.after(0, Filter(severity=severity), rows_max=100)
        assert {each.news.kind for each in page.happenings} == {
            kind for kind in kinds if list(Severity).index(_of(kind)) >= list(Severity).index(severity)
        }


def _of(kind: Kind) -> Severity:
    return SEVERITY[kind]

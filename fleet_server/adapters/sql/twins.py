"""The port :class:`fleet_server.change.store.TwinStore` in the operators' database."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Row, and_, select, update

from broker_config.twin import ApplyWindow, Reported, SettingValue
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.device_rows import bound
from fleet_server.adapters.sql.twin_documents import Documents, config_body, provenance_body
from fleet_server.adapters.sql.twin_rows import (
    Held,
    Writing,
    desire,
    held_of,
    history_of,
    newest_of,
    report,
    reported_of,
    versions_of,
)
from fleet_server.adapters.sql.twin_tables import twin as twins
from fleet_server.adapters.sql.twin_tables import twin_desired, twin_reported
from fleet_server.change.twins import (
    Aim,
    Drift,
    Report,
    Twin,
    Versions,
    Wish,
    next_version,
)

TWIN_LOCK: Final = 0x6666_7477
"""Who writes twins on PostgreSQL waits for whoever does, so that versions grow in the order of commits."""


class SqlTwins:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine
        self._documents = Documents()

    # what is so

    def twin(self, device: str) -> Twin:
        """See the port."""
        return self.twins([device])[device]

    def twins(self, devices: Sequence[str]) -> Mapping[str, Twin]:
        """See the port."""
        with database.reading(self._engine) as connection:
            held = held_of(connection, devices)
            aims = self._aims(connection, newest_of(connection, twin_desired, twins.c.desired_number, held))
            reports = self._reports(connection, newest_of(connection, twin_reported, twins.c.reported_number, held))
        return {
            device: Twin(
                device, aims.get(device), reports.get(device), held[device].held_by if device in held else ""
            )
            for device in devices
        }

    def drifts(self, devices: Sequence[str]) -> Mapping[str, Drift]:
        """See the port."""
        with database.reading(self._engine) as connection:
            return {device: Drift(held.drift) for device, held in held_of(connection, devices).items()}

    def versions(self, devices: Sequence[str]) -> Mapping[str, Versions]:
        """See the port."""
        with database.reading(self._engine) as connection:
            held = held_of(connection, devices)
        return {device: versions_of(held.get(device) or Held(device)) for device in devices}

    def configs(self, devices: Sequence[str]) -> Mapping[str, Mapping[str, SettingValue]]:
        """See the port."""
        with database.reading(self._engine) as connection:
            held = held_of(connection, devices)
            found = self._documents.configs(connection, (each.document for each in held.values()))
        return {device: found[each.document] for device, each in held.items() if each.document}

    # desired

    def desire(self, wishes: Sequence[Wish], *, now_ms: int) -> Mapping[str, int]:
        """See the port."""
        made: dict[str, int] = {}
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            writing = Writing(connection, self._documents, [wish.device for wish in wishes])
            sources = self._sources(connection, writing, wishes)
            bodies: dict[tuple[int, int], tuple[str, str]] = {}
            for wish in wishes:
                held = writing.held(wish.device)
                if held.held_by and held.held_by != wish.rollout:
                    continue
                # many wishes share one composition, and encoding it is most of the work
                shared = id(wish.config), id(wish.provenance)
                pair = bodies.get(shared)
                if pair is None:
                    pair = writing.body(config_body(wish.config)), writing.body(provenance_body(wish.provenance))
                    bodies[shared] = pair
                document, provenance = pair
                if document != held.document and (held.desired_version or wish.config):
                    made[wish.device] = desire(writing, wish, document, provenance, now_ms)
                    continue
                if held.desired_version and sources.get(wish.device) != provenance:
                    row = {"device": wish.device, "number": held.desired_number, "provenance": provenance}
                    writing.sourced.append(bound(row))
                if held.held_by:
                    writing.put(held._replace(held_by=""))
            writing.write()
        return made

    def renew(self, devices: Sequence[str], *, now_ms: int) -> Mapping[str, int]:
        """See the port."""
        made: dict[str, int] = {}
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            writing = Writing(connection, self._documents, devices)
            held = {device: writing.held(device) for device in devices}
            rows = newest_of(connection, twin_desired, twins.c.desired_number, held)
            for device, row in rows.items():
                number = held[device].desired_number + 1
                version = next_version(held[device].desired_version, held[device].taken, now_ms)
                entry = {**row._asdict(), "number": number, "version": version, "at_ms": now_ms}
                writing.desired.append(entry)
                state = Drift.PENDING.value if held[device].reported_version else held[device].drift
                writing.put(held[device]._replace(desired_version=version, desired_number=number, drift=state))
                made[device] = version
            writing.write()
        return made

    def _sources(self, connection: Connection, writing: Writing, wishes: Sequence[Wish]) -> Mapping[str, str]:
        """The provenance of what is desired now of each, as its digest."""
        held = {wish.device: writing.held(wish.device) for wish in wishes}
        rows = newest_of(connection, twin_desired, twins.c.desired_number, held)
        return {device: row.provenance for device, row in rows.items()}

    def hold(self, devices: Sequence[str], rollout: str) -> Sequence[str]:
        """See the port."""
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            writing = Writing(connection, self._documents, devices)
            free = [device for device in devices if writing.held(device).held_by in {"", rollout}]
            for device in free:
                writing.put(writing.held(device)._replace(held_by=rollout))
            writing.write()
        return free

    def free(self, devices: Sequence[str], rollout: str) -> None:
        """See the port."""
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            for some in database.slices(devices):
                chosen = and_(twins.c.device.in_(some), twins.c.held_by == rollout)
                connection.execute(update(twins).where(chosen).values(held_by=""))

    # reported

    def report(self, said: Sequence[tuple[str, Reported]], *, now_ms: int) -> Mapping[str, Versions]:
        """See the port."""
        devices = list(dict.fromkeys(device for device, _ in said))
        newest: dict[str, Reported] = {}
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            writing = Writing(connection, self._documents, devices)
            held = {device: writing.held(device) for device in devices}
            aims = self._aims(connection, newest_of(connection, twin_desired, twins.c.desired_number, held))
            before = self._reports(connection, newest_of(connection, twin_reported, twins.c.reported_number, held))
            newest.update({device: each.reported for device, each in before.items()})
            for device, reported in said:
                if reported.version <= writing.held(device).reported_version:
                    continue
                report(writing, device, reported, newest.get(device), aims.get(device), now_ms)
                newest[device] = reported
            writing.write()
            return {device: versions_of(writing.held(device)) for device in devices}

    # histories

    def desired_history(self, device: str, *, before: int | None, rows_max: int) -> Sequence[Aim]:
        """See the port."""
        with database.reading(self._engine) as connection:
            rows = history_of(connection, twin_desired, device, before, rows_max)
            aims = self._aims(connection, {str(at): row for at, row in enumerate(rows)})
        return list(aims.values())

    def reported_history(self, device: str, *, before: int | None, rows_max: int) -> Sequence[Report]:
        """See the port."""
        with database.reading(self._engine) as connection:
            rows = history_of(connection, twin_reported, device, before, rows_max)
            reports = self._reports(connection, {str(at): row for at, row in enumerate(rows)})
        return list(reports.values())

    def at(self, device: str, at_ms: int) -> Twin:
        """See the port."""
        with database.reading(self._engine) as connection:
            rows = []
            for table in (twin_desired, twin_reported):
                chosen = select(table).where(table.c.device == device, table.c.at_ms <= at_ms)
                rows.append(connection.execute(chosen.order_by(table.c.number.desc()).limit(1)).one_or_none())
            desired, reported = ({} if row is None else {device: row} for row in rows)
            aim = self._aims(connection, desired).get(device)
            report = self._reports(connection, reported).get(device)
        return Twin(device, aim, report)

    # rows and values

    def _aims(self, connection: Connection, rows: Mapping[str, Row[Any]]) -> dict[str, Aim]:
        configs = self._documents.configs(connection, (row.document for row in rows.values()))
        sources = self._documents.provenances(connection, (row.provenance for row in rows.values()))
        return {
            key: Aim(
                row.version,
                row.at_ms,
                configs[row.document],
                sources[row.provenance],
                row.by,
                row.origin,
                row.rollout,
                row.confirm_s,
                msgspec.json.decode(row.apply_window, type=ApplyWindow) if row.apply_window else None,
            )
            for key, row in rows.items()
        }

    def _reports(self, connection: Connection, rows: Mapping[str, Row[Any]]) -> dict[str, Report]:
        configs = self._documents.configs(connection, (row.document for row in rows.values()))
        return {key: Report(row.at_ms, reported_of(row, configs[row.document])) for key, row in rows.items()}

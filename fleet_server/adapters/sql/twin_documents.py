"""Documents of twins as rows: each is stored once, under its digest, and remembered once it was read."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from threading import Lock
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, select

from broker_config.twin import SettingValue
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.twin_tables import twin_document
from fleet_server.change.layers import LayerKind, LayerName, Source

REMEMBERED_MAX: Final = 20_000
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def config_body(config: Mapping[str, SettingValue]) -> str:
    """The same text for the same configuration."""
    return _ENCODER.encode(dict(config)).decode()


def provenance_body(provenance: Mapping[str, Source]) -> str:
    """Setting -> [kind, name, revision]."""
    return _ENCODER.encode({name: [*each.layer, each.revision] for name, each in provenance.items()}).decode()


def digest(body: str) -> str:
    """What it is stored under."""
    return sha256(body.encode()).hexdigest()


class Documents:
    """Any thread; what is remembered was committed, or is stored again."""

    def __init__(self) -> None:
        self._read: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._lock = Lock()

    def store(self, connection: Connection, bodies: Mapping[str, str]) -> None:
        """*bodies*: digest -> text; the caller's transaction is the only one that writes."""
        found: set[str] = set()
        for some in database.slices(list(bodies)):
            found.update(
                connection.execute(select(twin_document.c.digest).where(twin_document.c.digest.in_(some))).scalars()
            )
        new = [{"digest": name, "body": body} for name, body in bodies.items() if name not in found]
        if new:
            connection.execute(insert(twin_document), new)

    def configs(self, connection: Connection, digests: Iterable[str]) -> Mapping[str, Mapping[str, SettingValue]]:
        """Configurations, by digest."""
        return self._found(connection, digests)

    def provenances(self, connection: Connection, digests: Iterable[str]) -> Mapping[str, Mapping[str, Source]]:
        """Provenances, by digest."""
        return {
            name: {
                setting: Source(LayerName(LayerKind(kind), layer), revision)
                for setting, (kind, layer, revision) in body.items()
            }
            for name, body in self._found(connection, digests).items()
        }

    def _found(self, connection: Connection, digests: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        wanted = set(digests) - {""}
        with self._lock:
            out = {name: self._read[name] for name in wanted if name in self._read}
            for name in out:
                self._read.move_to_end(name)
        column = twin_document.c
        for some in database.slices([name for name in wanted if name not in out]):
            for row in connection.execute(select(column.digest, column.body).where(column.digest.in_(some))):
                out[row.digest] = msgspec.json.decode(row.body, type=dict[str, Any])
        with self._lock:
            self._read.update(out)
            while len(self._read) > REMEMBERED_MAX:
                self._read.popitem(last=False)
        return out

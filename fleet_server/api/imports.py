"""``/v1/imports``: CSV of devices, organisation nodes and duty units."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from fastapi import Body, Query

from fleet_server.api import registry_models as models
from fleet_server.api import times
from fleet_server.api.problems import Fault, invalid, responses
from fleet_server.api.refusals import translated
from fleet_server.api.routes import Routes
from fleet_server.registry import imports
from fleet_server.registry.store import Imported, Registry

NAMES_TOLD_MAX: Final = 100
CSV: Final = "text/csv"

CsvBody: TypeAlias = Annotated[bytes, Body(media_type=CSV, description="UTF-8, with a header.")]
DryRun: TypeAlias = Annotated[bool, Query(description="Only tell what it would do.")]

Row = TypeVar("Row", bound=msgspec.Struct)


def routes(registry: Registry, clock: times.Clock) -> Routes:
    """The routes of imports. Every one blocks on the registry, so the framework runs it in a thread."""
    router = Routes(tags=["imports"])
    refused = responses(HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    @router.post("/v1/imports/devices", summary="Register devices from CSV", responses=refused)
    def devices(body: CsvBody, *, dry_run: DryRun = False) -> models.Imported:
        """Columns device, device_class, and any of serial, node, unit, note. All rows or none; who is not in the file
        stays as it is, who is gets exactly what its row says.
        """
        read = sound(imports.read_devices(body))
        nodes = {placed.node.node for placed in registry.nodes()}
        units = {held.unit.unit for held in registry.units()}
        all_there(read, lambda row: row.node, nodes, "node: a node of /v1/org-nodes")
        all_there(read, lambda row: row.unit, units, "unit: a unit of /v1/duty-units")
        with translated(None):
            return told_of(registry.import_devices(read.rows, now_ms=clock(), dry_run=dry_run), dry_run=dry_run)

    @router.post("/v1/imports/org-nodes", summary="Make organisation nodes from CSV", responses=refused)
    def org_nodes(body: CsvBody, *, dry_run: DryRun = False) -> models.Imported:
        """Columns node, kind, name, and parent, in any order of rows. All or none."""
        read = sound(imports.read_nodes(body))
        with translated(None):
            return told_of(registry.import_nodes(read.rows, now_ms=clock(), dry_run=dry_run), dry_run=dry_run)

    @router.post("/v1/imports/duty-units", summary="Make duty units from CSV", responses=refused)
    def duty_units(body: CsvBody, *, dry_run: DryRun = False) -> models.Imported:
        """Columns unit, name, and node. All or none."""
        read = sound(imports.read_units(body))
        nodes = {placed.node.node for placed in registry.nodes()}
        all_there(read, lambda row: row.node, nodes, "node: a node of /v1/org-nodes")
        with translated(None):
            return told_of(registry.import_units(read.rows, dry_run=dry_run), dry_run=dry_run)

    return router


def sound(read: imports.Read[Row]) -> imports.Read[Row]:
    if read.faults:
        raise invalid(
            [Fault(where=line_name(fault.line), expected=fault.expected, got=fault.got) for fault in read.faults]
        )
    return read


def all_there(read: imports.Read[Row], name: Callable[[Row], str | None], known: set[str], expected: str) -> None:
    faults = [
        Fault(where=line_name(line), expected=expected, got=wanted)
        for row, line in zip(read.rows, read.lines, strict=True)
        if (wanted := name(row)) is not None and wanted not in known
    ]
    if faults:
        raise invalid(faults)


def line_name(line: int) -> str:
    return f"line {line}" if line else "file"


def told_of(done: Imported, *, dry_run: bool) -> models.Imported:
    return models.Imported(
        dry_run=dry_run,
        created=len(done.created),
        changed=len(done.changed),
        unchanged=done.unchanged,
        created_names=list(done.created[:NAMES_TOLD_MAX]),
        changed_names=list(done.changed[:NAMES_TOLD_MAX]),
    )

"""``/v1/twins``: what each device is to be, what it says that it is, and what either was at a time."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from fastapi import Body, Query, Response

from broker_config import limits
from broker_config.twin import merged
from fleet_server.access import acting
from fleet_server.access.scoped_change import ScopedLayers, ScopedTwins
from fleet_server.api import pages, times
from fleet_server.api import twin_models as models
from fleet_server.api.conditions import IfMatch, etag, to_change
from fleet_server.api.config_layers import checked, preview, translated
from fleet_server.api.devices import DeviceName
from fleet_server.api.imports import DryRun
from fleet_server.api.problems import responses
from fleet_server.api.refusals import CHANGE, MERGE_PATCH
from fleet_server.api.routes import Routes
from fleet_server.api.times import rfc3339
from fleet_server.change import store, twins
from fleet_server.change.circumstances import CircumstancesOf
from fleet_server.change.composing import Composer
from fleet_server.change.layers import LayerKind, LayerName
from fleet_server.change.store import LayerStore, TwinStore
from fleet_server.change.twins import Twin

FIRST: Final = limits.SEQ_MAX
"""Above every version."""
_Version = Annotated[int, msgspec.Meta(ge=0, le=limits.SEQ_MAX)]
At = Annotated[times.TimeIn | None, Query(description="As it was at this time; now if not given.")]


@dataclass(frozen=True, slots=True)
class Change:
    """What changes devices at a distance: ports that are not scoped yet, and what composes."""

    twins: TwinStore
    layers: LayerStore
    composer: Composer
    circumstances: CircumstancesOf


def routes(kept: ScopedTwins, layers: ScopedLayers, circumstances: CircumstancesOf, clock: times.Clock) -> Routes:
    """The routes of twins. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["twins"])
    path = "/v1/twins/{device}"

    def answer(device: str, found: Twin, at_ms: int | None) -> models.DeviceTwin:
        layer = None if at_ms is not None else layers.layer(LayerName(LayerKind.DEVICE, device))
        around = circumstances(device, clock() if at_ms is None else at_ms)
        aim, report = found.aim, found.report
        return models.DeviceTwin(
            device=device,
            at_ms=at_ms,
            at_at=rfc3339(at_ms),
            drift=found.drift,
            deviating=[] if aim is None or report is None else [*twins.deviating(aim.config, report.reported.config)],
            held_by=found.held_by or None,
            desired=None if aim is None else models.DesiredState.of(aim),
            reported=None if report is None else models.ReportedState.of(report),
            own=None if at_ms is not None else {} if layer is None else layer.document,
            place=models.TwinPlace(device_class=around.device_class or None, org=around.path or None),
            agent=around.agent or None,
            hardware=around.hardware or None,
            profile=around.profile or None,
            profile_digest=around.profile_digest or None,
            clock=None if around.clock is None else models.TwinClock(**around.clock._asdict()),
            assignment=None if around.given is None else models.TwinAssignment.of(around.given),
        )

    @router.get(path, summary="What a device is and is to be", responses=responses(HTTPStatus.NOT_FOUND))
    def twin(device: DeviceName, response: Response, at: At = None) -> models.DeviceTwin:
        """With its ETag, which a change must give; of a time, what is known of it then."""
        with translated(device):
            found = kept.twin(device) if at is None else kept.at(device, at)
        if at is None:
            response.headers["ETag"] = etag(found.desired_version)
        return answer(device, found, at)

    @router.patch(path, summary="Set a device", responses=responses(*CHANGE))
    def change(
        device: DeviceName,
        body: Annotated[models.SettingsPatch, Body(media_type=MERGE_PATCH)],
        response: Response,
        if_match: IfMatch = None,
        *,
        dry_run: DryRun = False,
    ) -> models.TwinChanged:
        """A merge patch of the device's own settings, which win over all others; null takes one away, and what the
        layers before say counts again.
        """
        condition = to_change(if_match)
        name = LayerName(LayerKind.DEVICE, device)
        with translated(device):
            version = kept.twin(device).desired_version
            if condition.expected not in {None, version}:
                raise store.StaleError(version)
            before = layers.layer(name)
            document = merged({} if before is None else before.document, body)
            around = circumstances(device, clock())
            checked(name, {each: document[each] for each in body if each in document}, around.device_class)
            shown = None
            if dry_run:
                shown = preview(layers.if_layer(name, document))
            else:
                revision = 0 if before is None else before.revision
                layers.put_layer(name, document, expected=revision, by=acting.principal().holder)
            found = kept.twin(device)
        response.headers["ETag"] = etag(found.desired_version)
        return models.TwinChanged(twin=answer(device, found, None), dry_run=shown)

    @router.get(f"{path}/desired", summary="What was desired of a device", responses=responses(HTTPStatus.NOT_FOUND))
    def desired(
        device: DeviceName, limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None
    ) -> models.DesiredHistory:
        """The newest first, as far back as it is kept."""
        before = pages.read_cursor(cursor, _Version, FIRST)
        with translated(device):
            found, follows = pages.cut(kept.desired_history(device, before=before, rows_max=limit + 1), limit)
        return models.DesiredHistory(
            desired=[models.DesiredState.of(aim) for aim in found],
            next=pages.write_cursor(found[-1].version) if follows else None,
        )

    @router.get(f"{path}/reported", summary="What a device reported", responses=responses(HTTPStatus.NOT_FOUND))
    def reported(
        device: DeviceName, limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None
    ) -> models.ReportedHistory:
        """The newest first, as far back as it is kept; what it said again is no entry of its own."""
        before = pages.read_cursor(cursor, _Version, FIRST)
        with translated(device):
            found, follows = pages.cut(kept.reported_history(device, before=before, rows_max=limit + 1), limit)
        return models.ReportedHistory(
            reported=[models.ReportedState.of(report) for report in found],
            next=pages.write_cursor(found[-1].reported.version) if follows else None,
        )

    return router

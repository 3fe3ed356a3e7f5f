"""``/v1/devices/{device}/registration``: what operators say of a device."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Body, Response

from broker_config import device_classes
from fleet_server.api import registry_models as models
from fleet_server.api import times
from fleet_server.api.conditions import IfMatch, IfNoneMatch, etag, to_change, to_put
from fleet_server.api.devices import DeviceName
from fleet_server.api.problems import bad_request, not_found, responses
from fleet_server.api.refusals import CHANGE, MERGE_PATCH, patched, translated
from fleet_server.api.routes import Routes
from fleet_server.registry import model
from fleet_server.registry.model import Registration
from fleet_server.registry.store import Registry


def routes(registry: Registry, clock: times.Clock) -> Routes:
    """The routes of registrations. Every one blocks on the registry, so the framework runs it in a thread."""
    router, path = Routes(tags=["devices"]), "/v1/devices/{device}/registration"

    def held(device: str) -> model.Device:
        found = registry.device(device)
        if found is None or found.registered_ms is None:
            raise not_found(
                "registration", f"{device} is not registered", expected="a device that is; PUT makes it so"
            )
        return found

    def answer(device: model.Device, response: Response) -> models.Registration:
        response.headers["ETag"] = etag(device.revision)
        return models.Registration.of(device)

    @router.get(path, summary="What operators said of a device", responses=responses(HTTPStatus.NOT_FOUND))
    def registration(device: DeviceName, response: Response) -> models.Registration:
        """With its ETag, which a change must give."""
        return answer(held(device), response)

    @router.put(path, summary="Register a device, or replace what was said", responses=responses(*CHANGE))
    def register(
        device: DeviceName,
        body: models.RegistrationIn,
        response: Response,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> models.Registration:
        """`If-None-Match: *` registers, `If-Match` replaces."""
        condition = to_put(if_match, if_none_match)
        wanted = _checked(Registration(device, **body.model_dump()))
        if not condition.create:
            held(device)
        with translated(device):
            made = registry.register(wanted, expected=condition.expected, create=condition.create, now_ms=clock())
        return answer(made, response)

    @router.patch(path, summary="Change what was said of a device", responses=responses(*CHANGE))
    def change(
        device: DeviceName,
        body: Annotated[models.RegistrationPatch, Body(media_type=MERGE_PATCH)],
        response: Response,
        if_match: IfMatch = None,
    ) -> models.Registration:
        """A merge patch."""
        condition = to_change(if_match)
        wanted = _checked(patched(Registration, held(device).registration, body.model_dump(exclude_unset=True)))
        with translated(device):
            made = registry.register(wanted, expected=condition.expected, create=False, now_ms=clock())
        return answer(made, response)

    @router.delete(
        path,
        summary="Take a registration away",
        status_code=HTTPStatus.NO_CONTENT,
        responses=responses(*CHANGE),
    )
    def forget(device: DeviceName, if_match: IfMatch = None) -> None:
        """What the device measured stays, and so does what it says of itself."""
        condition = to_change(if_match)
        held(device)
        with translated(device):
            registry.forget(device, expected=condition.expected, now_ms=clock())

    return router


def _checked(wanted: Registration) -> Registration:
    if wanted.device_class not in device_classes.names():
        known = f"one of {', '.join(device_classes.names())}"
        raise bad_request("body.device_class", expected=known, got=wanted.device_class)
    return wanted

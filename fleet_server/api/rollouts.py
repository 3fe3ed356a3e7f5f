"""``/v1/rollouts``: changes of the configuration that go to devices in waves, and stop themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from fastapi import Path, Query, Response

from broker_config import limits
from fleet_server.access import acting
from fleet_server.api import pages
from fleet_server.api import rollout_models as models
from fleet_server.api.conditions import etag
from fleet_server.api.imports import DryRun
from fleet_server.api.problems import Fault, ProblemError, bad_request, invalid, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.change.planning import BadPlanError
from fleet_server.change.rolling import NoRolloutError, Rolling
from fleet_server.change.rollout_state import NotNowError, Phase, State
from fleet_server.change.rollout_store import Before, Listed, MovedOnError, TooManyOpenError

PATH: Final = "/v1/rollouts"
ONE: Final = f"{PATH}/{{rollout}}"
ACT: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

RolloutName: TypeAlias = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", examples=["0f" * 8])]


class _Place(NamedTuple):
    created_ms: pages.RowNumber
    id: str


NEWEST: Final = _Place(limits.SEQ_MAX, "")
"""Above every rollout."""


def routes(rolling: Rolling) -> Routes:
    """The routes of rollouts. Every one blocks on *rolling*, so the framework runs it in a thread."""
    router = Routes(tags=["rollouts"])

    def found(rollout: str, response: Response | None = None) -> models.Rollout:
        listed = _known(rolling, rollout)
        if response is not None:
            response.headers["ETag"] = etag(listed.revision)
        return models.Rollout.of(listed)

    @router.get(PATH, summary="Rollouts")
    def listed(
        phase: Annotated[Phase | None, Query(description="Only in this phase.")] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.Rollouts:
        """The newest first."""
        before = Before(*pages.read_cursor(cursor, _Place, NEWEST))
        page, follows = pages.cut(rolling.store.all(phase=phase, before=before, rows_max=limit + 1), limit)
        return models.Rollouts(
            rollouts=[models.Rollout.of(each) for each in page],
            next=pages.write_cursor((page[-1].head.created_ms, page[-1].id)) if follows else None,
        )

    @router.post(
        PATH,
        summary="Begin a rollout",
        status_code=HTTPStatus.CREATED,
        responses=responses(HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    )
    def create(body: models.RolloutPlan, response: Response, *, dry_run: DryRun = False) -> models.RolloutMade:
        """Of a change of one layer: each device gets it in its turn, and the layer has it once all went well. With
        `dry_run` only tell whom it means, in what order, what is wrong with it and what will hold it up.
        """
        try:
            plan = body.plan()
        except msgspec.ValidationError as error:
            raise bad_request("body", expected="a plan", got=str(error)) from error
        if dry_run:
            return models.RolloutMade(rollout=None, dry_run=models.RolloutPreview.of(plan, rolling.preview(plan)))
        with translated():
            made = rolling.create(plan, by=acting.principal().holder)
        return models.RolloutMade(rollout=found(made, response), dry_run=None)

    @router.get(ONE, summary="One rollout", responses=responses(HTTPStatus.NOT_FOUND))
    def one(rollout: RolloutName, response: Response) -> models.Rollout:
        """How it stands; its ETag is another one whenever that is different."""
        return found(rollout, response)

    @router.get(f"{ONE}/devices", summary="Devices of a rollout", responses=responses(HTTPStatus.NOT_FOUND))
    def devices(
        rollout: RolloutName,
        state: Annotated[State | None, Query(description="Only in this state.")] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.RolloutDevices:
        """By id."""
        _known(rolling, rollout)
        after = pages.read_cursor(cursor, str, "")
        rows = rolling.store.members(rollout, state=state, after=after, rows_max=limit + 1)
        page, follows = pages.cut(rows, limit)
        return models.RolloutDevices(
            devices=[models.RolloutDevice.of(*each) for each in page],
            next=pages.write_cursor(page[-1][0]) if follows else None,
        )

    @router.post(f"{ONE}/approve", summary="Agree to a rollout", responses=responses(*ACT))
    def approve(rollout: RolloutName, response: Response) -> models.Rollout:
        """By another one than who began it."""
        with translated():
            rolling.approve(rollout, by=acting.principal().holder)
        return found(rollout, response)

    @router.post(f"{ONE}/pause", summary="Pause a rollout", responses=responses(*ACT))
    def pause(rollout: RolloutName, body: models.ReasonIn, response: Response) -> models.Rollout:
        """No device has its turn; those under way go on."""
        with translated():
            rolling.pause(rollout, by=acting.principal().holder, reason=body.reason)
        return found(rollout, response)

    @router.post(f"{ONE}/resume", summary="Go on with a rollout", responses=responses(*ACT))
    def resume(rollout: RolloutName, response: Response) -> models.Rollout:
        """What paused it has been seen: bad ends until now break no rule again, and a wave that had too few
        successes, or was worse than its controls, is taken as it is.
        """
        with translated():
            rolling.resume(rollout)
        return found(rollout, response)

    @router.post(f"{ONE}/cancel", summary="Cancel a rollout", responses=responses(*ACT))
    def cancel(rollout: RolloutName, body: models.ReasonIn, response: Response) -> models.Rollout:
        """No more turns; what no device has taken up is withdrawn; who has the change keeps it."""
        with translated():
            rolling.cancel(rollout, by=acting.principal().holder, reason=body.reason)
        return found(rollout, response)

    @router.post(f"{ONE}/roll-back", summary="Roll a rollout back", responses=responses(*ACT))
    def roll_back(rollout: RolloutName, body: models.ReasonIn, response: Response) -> models.Rollout:
        """Who has the change gets what it had; also after a cancellation. A completed one is undone by another."""
        with translated():
            rolling.roll_back(rollout, by=acting.principal().holder, reason=body.reason)
        return found(rollout, response)

    return router


def _known(rolling: Rolling, rollout: str) -> Listed:
    listed = rolling.store.listed(rollout)
    if listed is None:
        raise _unknown(rollout)
    return listed


def _unknown(rollout: str) -> ProblemError:
    return not_found("rollout", f"there is no rollout {rollout}", expected=f"an id of {PATH}")


@contextmanager
def translated() -> Iterator[None]:
    """The room's errors as problems."""
    try:
        yield
    except NoRolloutError as error:
        raise not_found("rollout", str(error), expected=f"an id of {PATH}") from error
    except NotNowError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "not-now", "Not as it stands", str(error)) from error
    except MovedOnError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "moved-on", "It keeps changing", str(error)) from error
    except TooManyOpenError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "too-many", "There are too many", str(error)) from error
    except BadPlanError as error:
        faults = [Fault(where="body", expected="a plan that can begin", got=fault) for fault in error.faults]
        raise invalid(faults) from error

"""``/v1/quarantine``: messages that were not what they said."""

from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Path, Query, Response

from broker_config import limits
from broker_config.text import shown
from fleet_server.api import models, pages
from fleet_server.api.problems import ProblemError, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.telemetry.store import QuarantineRow, StoreError
from fleet_server.telemetry.view import TelemetryView

ROWS_MAX: Final = 100
"""A page: every row is read with its payload."""
STORED: Final = "stored"

RowId: TypeAlias = Annotated[int, Path(ge=1, le=limits.SEQ_MAX, examples=[3])]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=ROWS_MAX, description=f"Entries a page, at most {ROWS_MAX}.")]


class RawResponse(Response):
    """Bytes of the other side: never with a type that a browser would show."""

    media_type = "application/octet-stream"


def routes(view: TelemetryView) -> Routes:
    """The routes of quarantine. Every one blocks on *view*, so the framework runs it in a thread."""
    router = Routes(tags=["quarantine"])

    @router.get("/v1/quarantine", summary="Quarantined messages")
    def quarantine(limit: Limit = ROWS_MAX, cursor: pages.Cursor = None) -> models.QuarantinePage:
        """In the order they came, without their bytes."""
        after = pages.read_cursor(cursor, pages.RowNumber, 0)
        page, follows = pages.cut(view.quarantine(after_id=after, rows_max=limit + 1), limit)
        return models.QuarantinePage(
            quarantined=[models.Quarantined.of(row) for row in page],
            next=pages.write_cursor(page[-1].id) if follows else None,
        )

    @router.get(
        "/v1/quarantine/{row_id}",
        summary="A quarantined message's bytes",
        response_class=RawResponse,
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def payload(row_id: RowId) -> RawResponse:
        """The payload as it came."""
        headers = {"Content-Disposition": f'attachment; filename="quarantine-{row_id}.bin"'}
        return RawResponse(_row(view, row_id).payload, headers=headers)

    @router.post(
        "/v1/quarantine/{row_id}/replay",
        summary="Admit a quarantined message again",
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )
    def replay(row_id: RowId) -> models.Replayed:
        """A newer device class may know it now. 409 if it is still refused; nothing has changed then."""
        try:
            outcome = view.replay(row_id)
        except KeyError as error:
            raise _unknown(row_id) from error
        except TimeoutError as error:
            raise StoreError("the replay is not committed yet") from error
        if outcome != STORED:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "still-refused",
                "The message is still refused",
                shown(outcome),
                expected="a message that this server's device classes know",
            )
        return models.Replayed(id=row_id, outcome=outcome)

    return router


def _row(view: TelemetryView, row_id: int) -> QuarantineRow:
    rows = view.quarantine(after_id=row_id - 1, rows_max=1)
    if not rows or rows[0].id != row_id:
        raise _unknown(row_id)
    return rows[0]


def _unknown(row_id: int) -> ProblemError:
    return not_found("message", f"{row_id} is not in quarantine", expected="an id of /v1/quarantine")

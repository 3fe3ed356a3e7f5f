"""``/rollouts``: changes on their way to devices, and one of them as it runs."""

from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from broker_config import limits
from fleet_server.api import pages
from fleet_server.api.problems import not_found
from fleet_server.api.rollouts import RolloutName
from fleet_server.change.rollout_state import ENDS, Member, Phase, State
from fleet_server.change.rollout_store import Before, Listed, RolloutStore
from fleet_server.pages import words
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.texts import marked

REFRESH_S: Final = 3
ROLLOUTS_A_PAGE: Final = 50
DEVICES_A_PAGE: Final = 50


class _Place(NamedTuple):
    created_ms: pages.RowNumber
    id: str


class Wave(NamedTuple):
    """Of a plan; ``done``: its turn is over, ``now``: it is its turn."""

    name: str
    size: str
    done: bool
    now: bool


def routes(shell: Shell, store: RolloutStore) -> APIRouter:
    """Pages of rollouts. Every one blocks on *store*, so the framework runs it in a thread."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/rollouts")
    def listed(request: Request, cursor: pages.Cursor = None) -> Response:
        before = Before(*pages.read_cursor(cursor, _Place, _Place(limits.SEQ_MAX, "")))
        page, follows = pages.cut(store.all(phase=None, before=before, rows_max=ROLLOUTS_A_PAGE + 1), ROLLOUTS_A_PAGE)
        return shell.page(
            request,
            "rollouts.html",
            shell.texts(request)(marked("Rollouts")),
            refresh_s=REFRESH_S,
            rollouts=[
                (each, words.PHASES[each.head.phase], _ended(each), sum(each.counts.values())) for each in page
            ],
            following=pages.write_cursor((page[-1].head.created_ms, page[-1].id)) if follows else None,
            first=cursor is None,
        )

    @router.get("/rollouts/{rollout}")
    def one(request: Request, rollout: RolloutName, cursor: pages.Cursor = None) -> Response:
        found = store.listed(rollout)
        if found is None:
            raise not_found("rollout", f"there is no rollout {rollout}", expected="one of /rollouts")
        after = pages.read_cursor(cursor, str, "")
        rows = store.members(rollout, state=None, after=after, rows_max=DEVICES_A_PAGE + 1)
        page, follows = pages.cut(rows, DEVICES_A_PAGE)
        return shell.page(
            request,
            "rollout.html",
            found.plan.name,
            refresh_s=0 if found.head.phase in ENDS else REFRESH_S,
            rollout=found,
            phase=words.PHASES[found.head.phase],
            counts=[(words.STATES[state], found.counts[state]) for state in State if found.counts.get(state)],
            total=sum(found.counts.values()),
            ended=_ended(found),
            waves=_waves(found),
            members=[_member(found, *each) for each in page],
            following=pages.write_cursor(page[-1][0]) if follows else None,
            first=cursor is None,
        )

    return router


def _ended(found: Listed) -> int:
    """Devices that the change, or its end, has reached."""
    open_ = (State.QUEUED, State.OFFERED, State.WAITING, State.APPLYING, State.VERIFYING, State.ROLLING_BACK)
    return sum(count for state, count in found.counts.items() if state not in open_)


def _waves(found: Listed) -> list[Wave]:
    over = found.head.phase is Phase.COMPLETED
    return [
        Wave(wave.name, str(wave.size), over or number < found.head.wave, not over and number == found.head.wave)
        for number, wave in enumerate(found.plan.waves)
    ]


def _member(found: Listed, device: str, member: Member) -> tuple[str, words.Word, str, str]:
    waves = found.plan.waves
    return (
        device,
        words.STATES[member.state],
        waves[member.wave].name if member.wave < len(waves) else "",
        member.reason,
    )

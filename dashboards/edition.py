"""One edition of the dashboards: a language and a time zone; their names, and the links between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.layout import Section, Tile, laid_out
from dashboards.panels import About, link
from dashboards.scopes import Scope, scope_of_class, variables
from fleet_server.standing.measures import Measure
from fleet_server.texts import Language, Texts

BROWSER: Final = "browser"
"""Grafana's word for the time zone of whoever looks."""
TAG: Final = "fieldfleet"
_THE_REST: Final = "${__url_time_range}"
ALL: Final = "$__all"
VALUE: Final = "${__value.raw}"
"""What was clicked on. Devices and nodes are named with letters, digits, - and /, which a query string takes as they
are.
"""


class Board(StrEnum):
    """Every dashboard; its file is called so."""

    COMMAND_CENTRE = "command_centre"
    FLEET = "fleet"
    STATION = "station"
    BODY_CAMERAS = "body_cameras"
    IN_CAR_TERMINALS = "in_car_terminals"
    TRAFFIC_SIGNALS = "traffic_signals"
    INTERROGATION_ROOMS = "interrogation_rooms"
    EVIDENCE = "evidence"
    DEVICE = "device"
    FLEET_SERVER = "fleet_server"


HOME: Final = Board.COMMAND_CENTRE
"""What Grafana opens with."""

SCOPES: Final = {
    Board.COMMAND_CENTRE: Scope(("org",)),
    Board.FLEET: Scope(("org", "device_class", "device")),
    Board.STATION: Scope(("org",)),
    Board.BODY_CAMERAS: scope_of_class("body_camera"),
    Board.IN_CAR_TERMINALS: scope_of_class("in_car_terminal"),
    Board.TRAFFIC_SIGNALS: scope_of_class("traffic_light"),
    Board.INTERROGATION_ROOMS: scope_of_class("interrogation_room"),
    Board.EVIDENCE: Scope(("org",)),
    Board.DEVICE: Scope(("device",), single=True),
    Board.FLEET_SERVER: Scope(()),
}


@dataclass(frozen=True, slots=True)
class Edition:
    """``timezone``: as the IANA database names it, or :data:`BROWSER`. ``pages``: where the fleet server's pages are,
    such as ``https://fleet.example``; empty: no link leads there.
    """

    text: Texts
    timezone: str = BROWSER
    pages: str = ""

    @property
    def language(self) -> Language:
        """Of the texts."""
        return self.text.language

    @property
    def tag(self) -> str:
        """Has every dashboard of this language, and no other: menus stay in it."""
        return f"{TAG}-{self.language}"

    def uid(self, board: Board) -> str:
        """By which links find it."""
        name = f"{TAG}-{board.replace('_', '-')}"
        return name if self.language is Language.EN else f"{name}-{self.language.lower()}"

    def to(self, board: Board, title: str, *, keep: Sequence[str] = (), **chosen: str) -> grafana.DashboardLink:
        """A link to *board*: *chosen* variables, those to *keep* as they are here, and all of the others."""
        named = SCOPES[board].variables
        assert {*keep, *chosen} <= {*named}, (board, keep, chosen)
        parts = [
            f"${{{name}:queryparam}}" if name in keep else f"var-{name}={chosen.get(name, ALL)}" for name in named
        ]
        return link(self.text(title), f"/d/{self.uid(board)}?{'&'.join([*parts, _THE_REST])}")

    def to_pages(self, title: str, path: str = "/") -> tuple[grafana.DashboardLink, ...]:
        """A link to a page of the fleet server's, if it is known where these are."""
        return (link(self.text(title), f"{self.pages}{path}"),) if self.pages else ()

    def about(
        self,
        title: str,
        description: str,
        *links: grafana.DashboardLink,
        now: str | None = None,
        no_value: str | None = None,
    ) -> About:
        """What a panel says of itself, in this language. *now*: its own range; see :func:`now_of`."""
        shown = None if no_value is None else self.text(no_value)
        return self.about_named(self.text(title), self.text(description), *links, now=now, no_value=shown)

    def about_named(
        self,
        title: str,
        description: str,
        *links: grafana.DashboardLink,
        now: str | None = None,
        no_value: str | None = None,
    ) -> About:
        """The same of words that are in this language already."""
        to = links or (self.to(HOME, "Command centre"),)
        return About(title=title, description=description, links=to, time_from=now, no_value=no_value)

    def section(self, title: str, *tiles: Tile, collapsed: bool = False) -> Section:
        """A titled row."""
        return Section(self.text(title), tiles, collapsed=collapsed)

    def dashboard(
        self,
        board: Board,
        title: str,
        description: str,
        sections: Sequence[Section],
        *,
        annotations: Sequence[grafana.AnnotationQuery] = (),
    ) -> grafana.Dashboard:
        """The whole dashboard."""
        return grafana.Dashboard(
            uid=self.uid(board),
            title=self.text(title),
            description=self.text(description),
            tags=[TAG, self.tag],
            timezone=self.timezone,
            editable=False,
            graph_tooltip=grafana.DashboardCursorSync.CROSSHAIR,
            refresh="1m",
            time=grafana.DashboardDashboardTime(from_val="now-3h", to="now"),
            schema_version=42,
            links=[self._menu(), *self.to_pages("The fleet server's pages")],
            templating=grafana.DashboardDashboardTemplating(list_val=variables(SCOPES[board], self.text)),
            annotations=grafana.AnnotationContainer(list_val=list(annotations)) if annotations else None,
            panels=laid_out(sections),
        )

    def _menu(self) -> grafana.DashboardLink:
        return grafana.DashboardLink(
            title=self.text("Dashboards"),
            type_val=grafana.DashboardLinkType.DASHBOARDS,
            icon="external link",
            tags=[self.tag],
            as_dropdown=True,
            keep_time=True,
        )


def now_of(measure: Measure) -> str:
    """The range in which what is known *now* has a point: five minutes, and three times what lies between two.

    A device that was removed is gone after as much.
    """
    return f"now-{max(5, 3 * measure.every_s // 60)}m"


NOW: Final = "now-5m"
"""The same of streams."""

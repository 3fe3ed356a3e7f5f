"""What happened, as the server tells it: marks on the lines of a dashboard, and a table of words."""

from typing import Final

from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.edition import Edition
from dashboards.panels import DATASOURCE, PLAIN, Column, Step, Word, table_of
from dashboards.presence import NONE_SUCH
from dashboards.units import MOMENT
from fleet_server.standing.measures import HAPPENING
from fleet_server.texts import Language, marked

ROWS_MAX: Final = 200
_SEVERITIES: Final = {"info": marked("for information"), "warning": marked("warning"), "alarm": marked("alarm")}


class HappeningsQuery(Dataquery):
    """What the InfluxDB data source makes annotations of: a query, and the columns for words and tags."""

    def __init__(self, query: str, text: str) -> None:
        self.query = query
        self.text = text

    def to_json(self) -> dict[str, object]:
        """As the data source reads it."""
        return {
            "refId": "happenings",
            "fromAnnotations": True,
            "query": self.query,
            "rawQuery": True,
            "textEditor": True,
            "textColumn": self.text,
            "tagsColumn": "severity",
        }


def words_of(edition: Edition) -> str:
    """The field that has the words in this edition's language."""
    return "text_en" if edition.language is Language.EN else "text_zh_hans"


def _query(where: str, fields: tuple[str, ...]) -> str:
    names = ", ".join(f'"{name}"' for name in fields)
    return f'SELECT {names} FROM "{HAPPENING}" WHERE {where} ORDER BY time DESC LIMIT {ROWS_MAX}'


def happenings(edition: Edition, where: str) -> grafana.AnnotationQuery:
    """Marks at the times at which something happened."""
    text = words_of(edition)
    query = _query(where, (text, "severity"))
    return grafana.AnnotationQuery(
        name=edition.text("What happened"),
        datasource=DATASOURCE,
        enable=True,
        hide=False,
        icon_color="purple",
        target=HappeningsQuery(query, text),
    )


def happenings_table(edition: Edition, where: str) -> grafana.Panel:
    """The same in words, the newest first."""
    text = words_of(edition)
    severities = tuple(Word(name, edition.text(title)) for name, title in _SEVERITIES.items())
    columns = (
        Column(name="Time", title=edition.text("time"), unit=MOMENT, width_px_min=170),
        Column(name="severity", title=edition.text("severity"), words=severities, width_px_min=100),
        Column(name=text, title=edition.text("what happened"), steps=(Step(None, PLAIN),), width_px_min=400),
    )
    about = edition.about(
        "Happenings",
        "What the server told of it, the newest first; the lines above are marked at the same times.",
        no_value=NONE_SUCH,
    )
    query = _query(where, ("severity", text))
    return table_of(about, [query], columns, sort_by="Time", descending=True, time=True)

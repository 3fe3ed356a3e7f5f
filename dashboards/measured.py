"""Columns of what is measured: unit, heading and words of a field come from the tables that declare it."""

from broker_config import device_classes
from broker_config.device_classes import Field as StreamField
from dashboards.edition import VALUE, Board, Edition
from dashboards.panels import Column, Step, Word, Words
from dashboards.units import COUNT, SHARE, SPAN, decimals, grafana_unit
from dashboards.words import CLASSES, FIELDS, fixes, modes, yes_no
from fleet_server.standing.measures import SECONDS, YES_NO, Field, Measure


def field_of(measure: Measure, name: str) -> Field:
    """Raises KeyError: the table has no such field."""
    return {field.name: field for field in measure.fields}[name]


def known(
    edition: Edition,
    measure: Measure,
    name: str,
    title: str,
    *,
    steps: tuple[Step, ...] = (),
    background: bool = False,
) -> Column:
    """A column of a field of the server's own measures, as it is; *title*: its heading."""
    unit, words = _shown(edition, field_of(measure, name))
    return Column(name=name, title=edition.text(title), unit=unit, steps=steps, background=background, words=words)


def _shown(edition: Edition, field: Field) -> tuple[str, Words]:
    if field.share:
        return SHARE, ()
    if field.unit == SECONDS:
        return SPAN, ()
    return grafana_unit(field.unit), yes_no(edition.text) if field.unit == YES_NO else ()


def summed(edition: Edition, name: str, title: str, *, steps: tuple[Step, ...] = ()) -> Column:
    """A column of a number of devices."""
    return Column(name=name, title=edition.text(title), unit=COUNT, steps=steps)


def shared(edition: Edition, name: str, title: str, *, steps: tuple[Step, ...], background: bool = False) -> Column:
    """A column of a share of devices."""
    return Column(name=name, title=edition.text(title), unit=SHARE, steps=steps, background=background)


def read(
    edition: Edition, device_class: str, stream: str, name: str, *, steps: tuple[Step, ...] = (), title: str = ""
) -> Column:
    """A column of a field of a stream. Raises KeyError: the class has no such field."""
    of = device_classes.load(device_class).streams[stream].fields[name]
    return Column(
        name=name,
        title=edition.text(title or FIELDS[name]),
        unit=grafana_unit(of.unit),
        decimals=decimals(of.unit),
        steps=steps,
        words=words_of(edition, name, of),
    )


def words_of(edition: Edition, name: str, of: StreamField) -> Words:
    """What the values of a field are shown as, where not as numbers."""
    if of.unit == YES_NO:
        return yes_no(edition.text)
    of_its_own = {"mode": modes, "fix": fixes}
    return of_its_own[name](edition.text) if name in of_its_own else ()


def device_column(edition: Edition) -> Column:
    """A click leads to everything about the device."""
    to = edition.to(Board.DEVICE, "Everything about this device", device=VALUE)
    return Column(name="device", title=edition.text("device"), link=to, width_px_min=120)


def class_column(edition: Edition) -> Column:
    """In people's words."""
    return Column(name="device_class", title=edition.text("class"), width_px_min=120, words=class_names(edition))


def org_column(edition: Edition, board: Board) -> Column:
    """A click shows the node, and what is below it, on *board*."""
    to = edition.to(board, "This node and what is below it", org=VALUE)
    return Column(name="org", title=edition.text("node"), link=to, width_px_min=180)


def class_names(edition: Edition) -> Words:
    """What each class is called."""
    return tuple(Word(name, edition.text(title)) for name, title in CLASSES.items())


def devices(edition: Edition, board: Board) -> tuple[Column, Column, Column]:
    """The columns that say which device it is."""
    return device_column(edition), class_column(edition), org_column(edition, board)

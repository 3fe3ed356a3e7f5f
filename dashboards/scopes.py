"""What a dashboard is about: the variables at its top, and what they mean in a query."""

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.influxql import quoted, tag_values
from dashboards.panels import DATASOURCE
from fleet_server.standing.measures import PRESENCE
from fleet_server.texts import Texts, marked

_CHOSEN: Final = {
    "org": r'"org" =~ /^$org(\/.*)?$/',  # a node stands for all below it
    "device_class": '"device_class" =~ /^$device_class$/',
    "device": '"device" =~ /^$device$/',
}
_LABELS: Final = {
    "org": marked("Organisation node"),
    "device_class": marked("Device class"),
    "device": marked("Device"),
}


@dataclass(frozen=True, slots=True)
class Scope:
    """``variables``: tags that can be chosen, each among what the ones before it leave; ``of_class``: of this class
    only; ``single``: exactly one value of each, never all.
    """

    variables: tuple[str, ...]
    of_class: str | None = None
    single: bool = False

    @property
    def where(self) -> str:
        """The condition of a query about devices."""
        return " AND ".join(["$timeFilter", *self._of(self.variables)])

    @property
    def where_node(self) -> str:
        """The condition of a query about nodes of the organisation: they have no device, and no class."""
        return " AND ".join(["$timeFilter", *(_CHOSEN[name] for name in self.variables if name == "org")])

    def and_class(self, name: str) -> str:
        """:attr:`where`, of one class."""
        return f"{self.where} AND \"device_class\" = '{name}'"

    def offered(self, variable: str) -> str:
        """The query for what *variable* can be set to."""
        before = self.variables[: self.variables.index(variable)]
        return tag_values(PRESENCE.name, variable, where=" AND ".join(self._of(before)) or None)

    def _of(self, names: tuple[str, ...]) -> list[str]:
        classed = [] if self.of_class is None else [f"\"device_class\" = '{self.of_class}'"]
        exactly = (f"{quoted(name)} = '${name}'" for name in names)
        return [*classed, *(exactly if self.single else (_CHOSEN[name] for name in names))]


def scope_of_class(name: str) -> Scope:
    """Of a dashboard for one class of devices."""
    return Scope(("org", "device"), of_class=name)


def variables(scope: Scope, text: Texts) -> list[grafana.VariableModel]:
    """As Grafana has them."""
    return [_variable(scope, name, text(_LABELS[name])) for name in scope.variables]


def _variable(scope: Scope, name: str, label: str) -> grafana.VariableModel:
    # multi: Grafana escapes values for a regular expression only then, and an organisation's path has slashes
    everything = grafana.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = grafana.VariableModel(
        type_val=grafana.VariableType.QUERY,
        name=name,
        label=label,
        query=scope.offered(name),
        datasource=DATASOURCE,
        multi=not scope.single,
        include_all=not scope.single,
        all_value=None if scope.single else ".*",
        current=None if scope.single else everything,
        refresh=grafana.VariableRefresh.ON_DASHBOARD_LOAD,
        sort=grafana.VariableSort.NATURAL_ASC,
    )
    # the models' defaults, which are of another kind of variable
    variable.auto = variable.auto_min = variable.auto_count = None
    return variable

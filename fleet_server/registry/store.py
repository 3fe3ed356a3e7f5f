"""The registry. This is its port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Trusted: whoever can write here decides which dashboards, people and, later, changes a device is under.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from fleet_server.projection.labels import Labels
from fleet_server.registry.model import (
    Device,
    DeviceFilter,
    DutyUnit,
    HeldUnit,
    OrgNode,
    PlacedNode,
    Registration,
    Reported,
    Tally,
)


class Imported(NamedTuple):
    """What an import did, or would do: names of what is new, of what differs, and how many are as they were."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: int


class Registry(Protocol):
    """See the module's docstring. ``expected``: the revision that the caller saw; None: whatever it is."""

    def device(self, device: str) -> Device | None:
        """One device, registered or only heard of."""

    def devices(self, wanted: DeviceFilter, *, after: str, rows_max: int) -> Sequence[Device]:
        """Those meant, by id, behind *after*."""

    def tallies(self) -> Sequence[Tally]:
        """Counts by path and class."""

    def register(self, registration: Registration, *, expected: int | None, create: bool, now_ms: int) -> Device:
        """Put what an operator says in the place of what was said.

        Args:
            registration: all of it; what it leaves out is taken away.
            expected: see the class; 0 is a device that was only heard of, or is not there.
            create: whether it may be new.
            now_ms: from when on its class and place count.

        Raises:
            UnknownError: no such device (and it may not be new), node or unit.
            TakenError: another device has the serial.
            StaleError: see there.
        """

    def forget(self, device: str, *, expected: int | None, now_ms: int) -> None:
        """Take what operators said of it away; what was heard of it stays, with everything it measured.

        Raises:
            UnknownError, StaleError: see there.
        """

    def nodes(self) -> Sequence[PlacedNode]:
        """All of the tree, by path."""

    def put_node(self, node: OrgNode, *, expected: int | None, create: bool, now_ms: int) -> PlacedNode:
        """Make, rename or move a node; what stands below it moves along.

        Raises:
            UnknownError: no such node or parent.
            RuleError: the tree's rules.
            StaleError: see there.
        """

    def drop_node(self, node: str, *, expected: int | None) -> None:
        """Raises UnknownError, StaleError, or InUseError: nodes, units or devices belong to it."""

    def units(self) -> Sequence[HeldUnit]:
        """All duty units, by name."""

    def put_unit(self, unit: DutyUnit, *, expected: int | None, create: bool) -> HeldUnit:
        """Raises UnknownError, StaleError."""

    def drop_unit(self, unit: str, *, expected: int | None) -> None:
        """Raises UnknownError, StaleError, or InUseError: devices belong to it."""

    def import_devices(self, rows: Sequence[Registration], *, now_ms: int, dry_run: bool) -> Imported:
        """All of them or none. Raises as :meth:`register`, naming the device."""

    def import_nodes(self, rows: Sequence[OrgNode], *, now_ms: int, dry_run: bool) -> Imported:
        """All of them or none, in whatever order. Raises as :meth:`put_node`."""

    def import_units(self, rows: Sequence[DutyUnit], *, dry_run: bool) -> Imported:
        """All of them or none. Raises as :meth:`put_unit`."""


class Hearing(Protocol):
    """What the server itself enters and asks; not for people's requests."""

    def heard(self, devices: Iterable[tuple[str, Reported]], *, now_ms: int) -> None:
        """What births say; a device that was never heard of is entered."""

    def knows(self, device: str) -> bool:
        """Whether :meth:`labels` answers from its history; a dictionary's look-up's cost."""

    def placed(self, devices: Sequence[str] | None) -> Sequence[tuple[str, str, str]]:
        """Device, class and path of those of *devices* that are there; None: of all."""

    def when_placed(self, tell: Callable[[Sequence[str]], None]) -> None:
        """*tell* of devices whose class or path is another one from now on, once that is committed. It must not
        wait.
        """

    def labels(self, device: str, at_ms: int) -> Labels:
        """See :class:`fleet_server.projection.labels.LabelsOf`."""

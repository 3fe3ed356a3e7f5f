"""Twins, layers and groups. These are their ports.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Every call may raise :class:`fleet_server.telemetry.store.StoreError`. Trusted: whoever can write here decides what
each device is told to be, though not that it obeys: orders are signed elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from broker_config.twin import Reported, SettingValue
from fleet_server.change.layers import Group, Layer, LayerDocument, Layering, LayerName
from fleet_server.change.twins import Aim, Drift, Report, Twin, Versions, Wish


class TwinStore(Protocol):
    """Desired and reported of each device, and the history of both."""

    def twin(self, device: str) -> Twin:
        """Of any device, though it has nothing yet."""

    def twins(self, devices: Sequence[str]) -> Mapping[str, Twin]:
        """Of each of them."""

    def drifts(self, devices: Sequence[str]) -> Mapping[str, Drift]:
        """The state of each that has one; cheaper than :meth:`twins`."""

    def versions(self, devices: Sequence[str]) -> Mapping[str, Versions]:
        """The versions of each of them; cheaper than :meth:`twins`."""

    def configs(self, devices: Sequence[str]) -> Mapping[str, Mapping[str, SettingValue]]:
        """What is desired of each of which something is; cheaper than :meth:`twins`."""

    def desire(self, wishes: Sequence[Wish], *, now_ms: int) -> Mapping[str, int]:
        """Let each of *wishes* be what is desired; the new version of each device whose configuration changed.

        A configuration that is desired already gets no new version (what it comes from is kept up to date). A device
        that a rollout holds is passed over, unless the wish is that rollout's, which then holds it no longer.
        """

    def renew(self, devices: Sequence[str], *, now_ms: int) -> Mapping[str, int]:
        """Desire anew what is desired, under a version above what each of them took up; the new versions."""

    def hold(self, devices: Sequence[str], rollout: str) -> Sequence[str]:
        """From now on only *rollout* releases to *devices* what their layers make; those that another one holds are
        left out of the answer. Hold first and change layers then: nothing is released in between.
        """

    def free(self, devices: Sequence[str], rollout: str) -> None:
        """What *rollout* holds of them it holds no longer. Nothing is desired by that: compose them."""

    def report(self, said: Sequence[tuple[str, Reported]], *, now_ms: int) -> Mapping[str, Versions]:
        """Keep what devices reported, if it is newer than what they had; the versions of each of them then."""

    def desired_history(self, device: str, *, before: int | None, rows_max: int) -> Sequence[Aim]:
        """The newest first; *before*: versions below it."""

    def reported_history(self, device: str, *, before: int | None, rows_max: int) -> Sequence[Report]:
        """The newest first; *before*: versions below it."""

    def at(self, device: str, at_ms: int) -> Twin:
        """What was desired and what had been reported at a time, as far as the histories go back."""


class StaleError(Exception):
    """It was changed meanwhile; ``revision`` is what it has now. Nothing was changed."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"it was changed meanwhile; its revision is {revision}")
        self.revision = revision


class TooManyError(Exception):
    """There are as many groups, or members of one, as there may be."""


class Revised(NamedTuple):
    """``before`` None: it is new; ``after`` None: it is gone."""

    before: Group | None
    after: Group | None

    @property
    def members(self) -> frozenset[str]:
        """Every device that was or is in it."""
        none: frozenset[str] = frozenset()
        return (none if self.before is None else self.before.members) | (
            none if self.after is None else self.after.members
        )


class LayerStore(Protocol):
    """What operators said. ``expected``: the revision that the caller saw, 0 is none yet; None: whatever it is.
    ``dry_run``: only tell what it would be.
    """

    def layering(self) -> Layering:
        """All layers and groups, but for the layers of single devices."""

    def layer(self, name: LayerName) -> Layer | None:
        """One; None: nothing was ever said there."""

    def layers(self, names: Iterable[LayerName]) -> Mapping[LayerName, Layer]:
        """Those of them that are there."""

    def all_layers(self) -> Sequence[Layer]:
        """All but those of single devices, by kind and name."""

    def put_layer(
        self, name: LayerName, document: LayerDocument, *, expected: int | None, by: str, now_ms: int
    ) -> Layer:
        """Put *document*, which was checked, in the place of what was said there. Raises StaleError."""

    def groups(self) -> Sequence[Group]:
        """All, by name."""

    def group(self, group: str) -> Group | None:
        """One."""

    def put_group(
        self, group: str, priority: int, members: Iterable[str], *, expected: int | None, now_ms: int
    ) -> Revised:
        """Make or replace it; one that is made again is new. Raises StaleError, TooManyError."""

    def drop_group(self, group: str, *, expected: int | None) -> Revised:
        """Take it away, with its layer; nothing if it is not there. Raises StaleError."""

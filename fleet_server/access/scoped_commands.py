"""Commands as somebody sees them who may only act at some nodes: targets that were elsewhere are not there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fleet_server.access.roles import Scope
from fleet_server.change.command_store import (
    After,
    CommandFilter,
    CommandStore,
    Meant,
    Signed,
    UnknownCommandError,
)
from fleet_server.change.commands import Command, Count, State, Target


class ScopedCommands:
    """The part of a :class:`fleet_server.change.command_store.CommandStore` that people ask; *scope* is asked at each
    call.
    """

    def __init__(self, inner: CommandStore, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    def create(self, command: Command, targets: Sequence[Meant]) -> None:
        """See the port; the targets come from a registry that is scoped itself."""
        self._inner.create(command, targets)

    def command(self, command: str) -> Command | None:
        """See the port. Of one with no target here there is nothing."""
        found = self._inner.command(command)
        return found if found is not None and self.counts([command])[command] else None

    def commands(self, wanted: CommandFilter, *, after: After | None, rows_max: int) -> Sequence[Command]:
        """See the port."""
        mine = replace(wanted, within=self._within())
        return self._inner.commands(mine, after=after, rows_max=rows_max)

    def counts(self, commands: Sequence[str]) -> Mapping[str, Sequence[Count]]:
        """See the port."""
        return self._inner.counts(commands, self._within())

    def targets(
        self, command: str, *, state: State | None = None, after: str = "", rows_max: int
    ) -> Sequence[Target]:
        """See the port."""
        return self._inner.targets(command, state=state, within=self._within(), after=after, rows_max=rows_max)

    def cancel(self, command: str, *, now_ms: int) -> int:
        """See the port."""
        if self.command(command) is None:
            raise UnknownCommandError(command)
        return self._inner.cancel(command, within=self._within(), now_ms=now_ms)

    def prepared(self, orders: Sequence[Signed]) -> None:
        """See the port; for targets that were found here."""
        self._inner.prepared(orders)

    def approve(self, command: str, orders: Sequence[Signed], *, by: str, now_ms: int) -> None:
        """See the port; who approves must see all of its targets."""
        self._inner.approve(command, orders, by=by, now_ms=now_ms)

    def _within(self) -> tuple[str, ...] | None:
        scope = self._scope()
        return None if scope.everywhere else scope.paths

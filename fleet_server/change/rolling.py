"""Looks at every open rollout once a second, stores what came of it and carries it out; and does what people ask.

One look, or one thing that somebody asks, at a time: nothing that was paused or canceled gives a turn afterwards.
With several servers the one of the first shard looks; a rollout that another one changed meanwhile is read again, and
what was decided of the older one is not carried out.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from threading import Event, RLock
from typing import Final, TypeAlias

from broker_config.text import shown
from fleet_server.change import canary, rollout_acts
from fleet_server.change.bringing import Bringing, Brought, Staged
from fleet_server.change.planning import BadPlanError, Planner, Preview
from fleet_server.change.rollout_plan import Members, Plan
from fleet_server.change.rollout_state import ENDS, OPEN, Act, ActKind, Phase, Rollout, State, World
from fleet_server.change.rollout_store import Kept, MovedOnError, RolloutStore
from fleet_server.change.rollouts import CONTROL_WAITS, begun, look
from fleet_server.change.sight import Sight, placed
from fleet_server.outbound.happenings import Kind, News
from fleet_server.telemetry.store import StoreError

LOOK_S: Final = 1.0
RESTS: Final = 4
"""Times as long as a look took: large rollouts are looked at less often, and others have the machine."""
FULL_MS: Final = 60_000
"""So often who is meant is looked up anew, and whether another layer has changed what devices are to have."""
KEPT_UP_MAX: Final = 50
"""Of canceled and of completed rollouts, the newest: the devices of older ones get nothing new from other layers."""
TRIES: Final = 5
"""Of what somebody asks, against another server that changes the same rollout."""

Tell: TypeAlias = Callable[[Sequence[News]], None]
Change: TypeAlias = Callable[[Plan, Rollout], Rollout]

logger = logging.getLogger(__name__)


class NoRolloutError(Exception):
    """There is no such rollout."""


class Rolling:
    """``run`` it in a thread; everything else from any thread."""

    def __init__(
        self,
        store: RolloutStore,
        sight: Sight,
        bringing: Bringing,
        planner: Planner,
        *,
        tell: Tell,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self.store = store
        self._sight = sight
        self._bringing = bringing
        self._planner = planner
        self._tell = tell
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self._one_at_a_time = RLock()
        self._work = Event()
        self._kept: dict[str, Kept] = {}
        self._looked_ms: dict[str, int] = {}
        self._full_ms: dict[str, int] = {}
        self._kept_up_ms: int | None = None
        self._committed: set[str] = set()

    # the thread

    def run(self, stop: Event) -> None:
        """Look until *stop*; :meth:`wake` it then."""
        failing = False
        while not stop.is_set():
            begun_ms = self._monotonic_ms()
            try:
                self.turn()
                failing = False
            except StoreError as error:
                level = logging.DEBUG if failing else logging.WARNING
                logger.log(level, "rollouts stand still", extra={"error": shown(error)})
                failing = True
            took_s = (self._monotonic_ms() - begun_ms) / 1000
            self._work.wait(max(LOOK_S, RESTS * took_s))
            self._work.clear()

    def wake(self) -> None:
        """Look at once: something came, or it is to stop."""
        self._work.set()

    def turn(self) -> None:
        """Look once at each open rollout. Raises StoreError: the rest is not looked at."""
        open_ = self.store.open()
        names = [name for name, _ in open_]
        for stale in self._kept.keys() - set(names):
            self._forget(stale)
        for name, revision in open_:
            with self._one_at_a_time:
                kept = self._kept.get(name)
                if kept is None or kept.revision != revision:
                    kept = self.store.kept(name)
                if kept is not None:
                    self._look(kept, newer=frozenset(names[names.index(name) + 1 :]))
        self._keep_up()

    def _look(self, kept: Kept, *, newer: frozenset[str]) -> None:
        name = kept.rollout.id
        at_ms = self._monotonic_ms()
        step_ms = at_ms - self._looked_ms.get(name, at_ms)
        staged = self._bringing.staged(kept.plan)
        world, brought = self._world(kept, staged, newer)
        turn = look(kept.plan, kept.rollout, world, step_ms=step_ms, now_ms=self._now_ms())
        try:
            after = self.store.put(kept, turn.rollout)
        except MovedOnError:
            self._kept.pop(name, None)
            return
        self._kept[name], self._looked_ms[name] = after, at_ms
        self._say(kept.rollout, after.rollout, kept.plan)
        self._carry_out(after, staged, turn.acts)
        self._catch_up(kept.rollout, after, staged, brought)

    def _world(self, kept: Kept, staged: Staged, newer: frozenset[str]) -> tuple[World, Mapping[str, Brought]]:
        plan, rollout, fleet = kept.plan, kept.rollout, self._sight.fleet()
        is_full = self._is_full(rollout.id)
        wanted = self._wanted(kept, staged) if is_full else None
        names = [name for name in {**rollout.members, **dict.fromkeys(wanted or ())} if name in fleet]
        asked = [name for name in names if is_full or _is_asked(rollout, name)]
        brought = self._brought(rollout, staged, asked)
        pairs = self._sight.groups() if plan.spread.pairs else {}
        devices = {
            name: self._sight.known(fleet[name], pairs.get(name, ()), brought.get(name), newer=newer)
            for name in names
        }
        least = plan.spread.unit_working_min
        world = World(
            devices,
            wanted=wanted,
            others_working=self._sight.others_working(rollout.members.keys()) if least else {},
            measures=self._measures(kept),
            committed=rollout.id in self._committed,
        )
        return world, brought

    def _brought(self, rollout: Rollout, staged: Staged, names: Sequence[str]) -> Mapping[str, Brought]:
        fleet = self._sight.fleet()
        turned = {name for name in names if _has_had_turn(rollout, name)}
        return self._bringing.brought(rollout.id, staged, [placed(fleet[name]) for name in names], turned)

    def _is_full(self, rollout: str) -> bool:
        at_ms = self._monotonic_ms()
        last_ms = self._full_ms.get(rollout)
        if last_ms is not None and at_ms - last_ms < FULL_MS:
            return False
        self._full_ms[rollout] = at_ms
        return True

    def _wanted(self, kept: Kept, staged: Staged) -> frozenset[str] | None:
        if kept.plan.members is Members.FROZEN:
            return None
        # who has the change already is meant still
        had = {each for each, member in kept.rollout.members.items() if member.executed}
        return self._planner.meant(kept.plan, staged) | had

    def _measures(self, kept: Kept) -> Mapping[str, Mapping[str, float]] | None:
        rollout, control = kept.rollout, kept.plan.control
        if control is None or CONTROL_WAITS not in rollout.head.waits:
            return None
        sides = canary.asked(rollout)
        soak_ms = 1000 * kept.plan.waves[rollout.head.wave].soak_s
        return self._sight.measures(control, sides.wave, sides.controls, soak_ms=soak_ms)

    def _carry_out(self, kept: Kept, staged: Staged, acts: Sequence[Act]) -> None:
        rollout, fleet, by = kept.rollout, self._sight.fleet(), kept.rollout.head.created_by
        released = [act for act in acts if act.kind is ActKind.RELEASE and act.device in fleet]
        withdrawn = [
            placed(fleet[act.device]) for act in acts if act.kind is ActKind.WITHDRAW and act.device in fleet
        ]
        if released:
            self._bringing.release(
                rollout.id,
                kept.plan,
                staged,
                [placed(fleet[act.device]) for act in released],
                by=by,
                again={act.device for act in released if act.again},
            )
        if withdrawn:
            self._bringing.withdraw(rollout.id, staged, withdrawn, by=by)
        if any(act.kind is ActKind.COMMIT for act in acts):
            self._bringing.commit(rollout.id, kept.plan, sorted(rollout.members), by=by)
            self._committed.add(rollout.id)
            self._work.set()

    def _catch_up(self, before: Rollout, kept: Kept, staged: Staged, brought: Mapping[str, Brought]) -> None:
        """Of devices that had their turn: what other layers changed meanwhile; and who left is let go."""
        rollout, by = kept.rollout, kept.rollout.head.created_by
        if rollout.head.phase is not Phase.ROLLED_BACK and rollout.id not in self._committed:
            self._bring_up(kept, staged, brought)
        gone = [name for name in before.members if name not in rollout.members]
        if gone:
            self._bringing.let_go(rollout.id, gone, by=by)

    def _bring_up(self, kept: Kept, staged: Staged, brought: Mapping[str, Brought]) -> None:
        fleet, by = self._sight.fleet(), kept.rollout.head.created_by
        behind = [
            placed(fleet[name])
            for name, each in brought.items()
            if each.behind and name in fleet and _has_had_turn(kept.rollout, name)
        ]
        if behind:
            self._bringing.release(kept.rollout.id, kept.plan, staged, behind, by=by)

    def _keep_up(self) -> None:
        """Who has a change that is in no layer keeps it, and gets what other layers say besides."""
        at_ms = self._monotonic_ms()
        if self._kept_up_ms is not None and at_ms - self._kept_up_ms < FULL_MS:
            return
        self._kept_up_ms = at_ms
        ended = [
            listed.id
            for phase in (Phase.CANCELED, Phase.COMPLETED)
            for listed in self.store.all(phase=phase, before=None, rows_max=KEPT_UP_MAX)
            if phase is Phase.CANCELED or not listed.plan.into_layer
        ]
        for name in ended:
            with self._one_at_a_time:
                kept = self.store.kept(name)
                if kept is None or kept.rollout.head.phase not in ENDS:
                    continue
                fleet = self._sight.fleet()
                names = [name for name in kept.rollout.members if name in fleet and _has_had_turn(kept.rollout, name)]
                if names:
                    staged = self._bringing.staged(kept.plan)
                    self._bring_up(kept, staged, self._brought(kept.rollout, staged, names))

    def _say(self, before: Rollout, after: Rollout, plan: Plan) -> None:
        if before.head.phase is after.head.phase:
            return
        head = after.head
        logger.info("a rollout moved on", extra={"rollout": after.id, "phase": head.phase.value, "why": head.why})
        kind = None
        if head.phase is Phase.PAUSED:
            kind, why = Kind.ROLLOUT_PAUSED, "" if head.pause is None else head.pause.text
        elif head.phase in {Phase.CANCELING, Phase.ROLLING_BACK}:
            kind, why = Kind.ROLLOUT_STOPPED, head.why
        elif head.phase in ENDS:
            kind, why = Kind.ROLLOUT_ENDED, head.phase.value
        if kind is not None:
            data = {"rollout": after.id, "name": plan.name, "why": why}
            self._tell([News(self._now_ms(), kind, data=data)])

    def _forget(self, rollout: str) -> None:
        self._kept.pop(rollout, None)
        self._looked_ms.pop(rollout, None)
        self._full_ms.pop(rollout, None)
        self._committed.discard(rollout)

    # what people ask

    def preview(self, plan: Plan) -> Preview:
        """What it would do; nothing is stored."""
        return self._planner.planned(secrets.token_hex(8), plan)[0]

    def create(self, plan: Plan, *, by: str) -> str:
        """Begin it; its id. Raises BadPlanError, TooManyOpenError."""
        rollout = secrets.token_hex(8)
        preview, devices = self._planner.planned(rollout, plan)
        if preview.faults:
            raise BadPlanError(preview.faults)
        made = begun(rollout, plan, devices, second=preview.second, by=by, now_ms=self._now_ms())
        self.store.create(made, plan)
        self._work.set()
        return rollout

    def change(self, rollout: str, what: Change) -> None:
        """Do what somebody asks, with what is stored. Raises NoRolloutError, NotNowError."""
        with self._one_at_a_time:
            kept, after = self._changed(rollout, what)
        self._say(kept.rollout, after.rollout, kept.plan)
        self._work.set()

    def _changed(self, rollout: str, what: Change) -> tuple[Kept, Kept]:
        for tries_left in reversed(range(TRIES)):
            kept = self.store.kept(rollout)
            if kept is None:
                raise NoRolloutError(f"there is no rollout {rollout!r}")
            try:
                self._kept[rollout] = after = self.store.put(kept, what(kept.plan, kept.rollout))
            except MovedOnError:
                if not tries_left:
                    raise
            else:
                return kept, after
        raise AssertionError("unreachable")

    def approve(self, rollout: str, *, by: str) -> None:
        """See :mod:`rollout_acts`, here and below."""
        self.change(rollout, lambda _, each: rollout_acts.approved(each, by))

    def pause(self, rollout: str, *, by: str, reason: str) -> None:
        """See there."""
        self.change(rollout, lambda _, each: rollout_acts.held(each, by, reason))

    def resume(self, rollout: str) -> None:
        """See there."""
        self.change(rollout, lambda _, each: rollout_acts.resumed(each))

    def cancel(self, rollout: str, *, by: str, reason: str) -> None:
        """See there."""
        self.change(rollout, lambda _, each: rollout_acts.canceled(each, by, reason))

    def roll_back(self, rollout: str, *, by: str, reason: str) -> None:
        """See there."""
        self.change(rollout, lambda plan, each: rollout_acts.rolled_back(plan, each, by, reason))


def _is_asked(rollout: Rollout, name: str) -> bool:
    """Whether how it stands can matter to the next look."""
    member = rollout.members.get(name)
    if member is None or member.state in OPEN or member.state is State.ROLLING_BACK:
        return True
    if member.state is State.QUEUED:
        return member.wave <= rollout.head.wave
    return member.state in {State.SILENT, State.TIMED_OUT} and member.executed and not member.back


def _has_had_turn(rollout: Rollout, name: str) -> bool:
    """Whether the change is to be desired of it from now on."""
    member = rollout.members.get(name)
    if member is None or not member.executed or member.back:
        return False
    return member.state not in {State.QUEUED, State.SUPERSEDED, State.ROLLED_BACK}

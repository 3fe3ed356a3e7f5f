"""A rollout against played devices that join, leave, are deleted, fall silent, answer late or never, beside clocks
that jump and servers that are killed: never above rate or spread, never on after an abort, never stuck.
"""

from dataclasses import dataclass, field

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broker_config import twin
from broker_config.twin import ChangeState
from fleet_server.change import rollout_acts
from fleet_server.change.rollout_plan import (
    AbortRule,
    Ill,
    Members,
    Plan,
    Rate,
    Retries,
    Spread,
    Stop,
    Then,
    Timers,
    Wave,
)
from fleet_server.change.rollout_rules import per_minute
from fleet_server.change.rollout_state import (
    ENDED,
    ENDS,
    OPEN,
    ActKind,
    Known,
    Meant,
    NotNowError,
    Phase,
    Rollout,
    Shown,
    State,
    World,
)
from fleet_server.change.rollouts import begun, look

ID = "0123456789abcdef"
STATIONS = ("hq/station-1", "hq/station-2")
DEVICES = [f"cam-{number}" for number in range(12)]
UNIT_WORKING_MIN = 1
MINUTE_MS = 60_000

PLANS = st.builds(
    Plan,
    name=st.just("video"),
    layer=st.just("fleet"),
    patch=st.just({"video": "720p"}),
    members=st.sampled_from(Members),
    waves=st.sampled_from(
        [
            (Wave("all"),),
            (Wave("canary", "2", soak_s=30, min_done=1), Wave("rest", soak_s=5)),
            (Wave("canary", "20%", then=Then.PAUSE), Wave("more", "50%", soak_s=10), Wave("rest", success_pct=50)),
        ]
    ),
    rate=st.sampled_from([Rate(1), Rate(3, 2.0, every=2, max_per_min=6), Rate(60), Rate(600)]),
    spread=st.sampled_from(
        [Spread(station_pct=20, unit_working_min=UNIT_WORKING_MIN), Spread(station_pct=50), Spread(pairs="")]
    ),
    abort=st.sampled_from(
        [
            (),
            (AbortRule(Ill.ALL, 10.0, 3, Stop.PAUSE),),
            (AbortRule(Ill.FAILED, 20.0, 2, Stop.CANCEL), AbortRule(Ill.SILENT, 0.0, 1, Stop.ROLL_BACK)),
            (AbortRule(Ill.ALL, 30.0, 2, Stop.ROLL_BACK),),
        ]
    ),
    timers=st.just(Timers(queued_s=900, step_s=120, total_s=300, silent_s=90, ill_s=20, grace_s=60)),
    retries=st.sampled_from([Retries(), Retries(failed=1, timed_out=1)]),
)


@dataclass
class Device:
    """What is really so. ``orders``: version -> whether it is the change; ``told``: its last report."""

    name: str
    station: str
    unit: str
    pair: str
    present: bool = True
    excused: bool = False
    healthy: bool = True
    desired: int = 1
    brings: Meant = Meant.OLD
    told: Shown = field(default_factory=lambda: Shown(1, 1, ChangeState.CURRENT, as_desired=True))
    unheard: Shown | None = None

    def known(self) -> Known:
        """As the server has it."""
        return Known(
            device_class="body_camera",
            station=self.station,
            unit=self.unit,
            pairs=(self.pair,),
            present=self.present,
            excused=self.excused,
            healthy=self.healthy,
            meant=self.brings,
            version=self.desired,
            shown=self.told,
        )

    @property
    def is_unresolved(self) -> bool:
        """Whether the change is desired of it and it has not said how that ended."""
        ended = self.told.state in {
            ChangeState.CURRENT,
            ChangeState.REVERTED,
            ChangeState.FAILED,
            ChangeState.REFUSED,
        }
        return self.brings is Meant.NEW and not (self.told.desired == self.desired and ended)


class Rollouts(RuleBasedStateMachine):
    """One rollout, its server, and its fleet."""

    @initialize(plan=PLANS, second=st.sampled_from([False, False, False, True]))
    def begin(self, plan: Plan, second: bool) -> None:
        self.plan = plan
        self.fleet = {name: self._device(name) for name in DEVICES}
        self.wanted = set(DEVICES)
        known = {name: device.known() for name, device in self.fleet.items()}
        self.rollout = begun(ID, plan, known, second=second, by="ann", now_ms=0)
        self.true_ms = 0
        self.now_ms = 1_700_000_000_000
        self.fresh = True
        self.committed = False
        self.given: list[int] = []
        self.rejected: set[str] = set()

    def _device(self, name: str) -> Device:
        number = int(name.removeprefix("cam-"))
        return Device(name, STATIONS[number % 2], f"unit-{number % 3}", f"pair-{number // 2}")

    def _one(self, data: st.DataObject) -> Device:
        """A device, more often one that has had its turn."""
        out = [name for name, member in self.rollout.members.items() if member.state in OPEN and name in self.fleet]
        return self.fleet[data.draw(st.sampled_from(sorted(out) * 3 + sorted(self.fleet)))]

    def _world(self) -> World:
        devices = {name: device.known() for name, device in self.fleet.items()}
        return World(devices, wanted=frozenset(self.wanted & self.fleet.keys()), committed=self.committed)

    @rule(steps_s=st.lists(st.sampled_from([1, 1, 5, 20, 60]), min_size=1, max_size=4))
    def looks(self, steps_s: list[int]) -> None:
        for step_s in steps_s:
            self._look(step_s, "")

    @rule(step_s=st.sampled_from([1, 20]), crash=st.sampled_from(["before", "midway"]))
    def is_killed(self, step_s: int, crash: str) -> None:
        """What was decided is stored, and not or only partly carried out."""
        self._look(step_s, crash)

    def _look(self, step_s: int, crash: str) -> None:
        self.true_ms += step_s * 1000
        self.now_ms += step_s * 1000
        before = self.rollout
        turn = look(self.plan, before, self._world(), step_ms=0 if self.fresh else step_s * 1000, now_ms=self.now_ms)
        self.fresh = bool(crash)
        # what a restart has is what was stored
        self.rollout = msgspec.json.decode(msgspec.json.encode(turn.rollout), type=Rollout)
        assert self.rollout == turn.rollout
        acts = turn.acts
        if crash:
            acts = acts[: len(acts) // 2] if crash == "midway" else ()
        if any(act.kind is ActKind.RELEASE for act in turn.acts):
            assert not self._must_stop(before, turn.rollout)
        for act in acts:
            match act.kind:
                case ActKind.RELEASE:
                    assert turn.rollout.head.phase is Phase.RUNNING
                    self._release(act.device)
                case ActKind.WITHDRAW:
                    assert turn.rollout.head.phase in {Phase.CANCELING, Phase.ROLLING_BACK}
                    self._desire(self.fleet[act.device], Meant.OLD)
                case ActKind.COMMIT:
                    self._commit()
        self._check_ends(before)
        if before.head.phase not in ENDS:
            assert turn.rollout.members.keys() <= self.fleet.keys()  # who is deleted is on no side of anything

    def _must_stop(self, before: Rollout, rollout: Rollout) -> bool:
        """By the rules and by hand; first turns that were just given do not count yet."""
        executed = {name for name, each in before.members.items() if each.executed}
        members = [
            each
            for name, each in rollout.members.items()
            if name in executed and each.state not in {State.CANCELED, State.SUPERSEDED}
        ]
        for abort in self.plan.abort:
            bad = sum(each.ill is not None and abort.kind in {each.ill, Ill.ALL} for each in members)
            seen = rollout.head.accepted.get(abort.kind, 0)
            if bad > seen and 100 * bad / max(len(members), abort.min_executed) > abort.pct:
                return True
        return False

    def _release(self, name: str) -> None:
        device = self.fleet[name]
        assert device.present
        assert name not in self.rejected
        self.given = [at for at in self.given if at > self.true_ms - MINUTE_MS] + [self.true_ms]
        succeeded = sum(member.state is State.SUCCEEDED for member in self.rollout.members.values())
        assert len(self.given) <= per_minute(self.plan.rate, succeeded)
        if device.is_unresolved:  # an order of ours is out already: it is tried again, and nobody is touched besides
            self._desire(device, Meant.NEW)
            return
        others = [each for each in self.fleet.values() if each is not device and each.is_unresolved]
        if self.plan.spread.pairs:
            assert not [each.name for each in others if each.pair == device.pair]
        members = sum(self.fleet[each].station == device.station for each in self.rollout.members)
        allowed = max(1, int(members * self.plan.spread.station_pct / 100))
        # who was given a turn with this look and not yet told counts as well
        assert sum(each.station == device.station for each in others) + 1 <= allowed
        if device.healthy and not self.rollout.members[name].again:
            working = [
                each
                for each in self.fleet.values()
                if each.unit == device.unit and each.present and each.healthy and not each.is_unresolved
            ]
            assert len(working) - 1 >= self.plan.spread.unit_working_min
        self._desire(device, Meant.NEW)

    def _desire(self, device: Device, what: Meant) -> None:
        device.desired += 1
        device.brings = what

    def _commit(self) -> None:
        self.committed = True
        assert all(member.state in ENDED for member in self.rollout.members.values())

    def _check_ends(self, before: Rollout) -> None:
        for name, member in self.rollout.members.items():
            if member.state is State.SUCCEEDED and before.members[name].state is not State.SUCCEEDED:
                device = self.fleet[name]
                assert device.present
                assert device.told == Shown(device.desired, device.desired, ChangeState.CURRENT, as_desired=True)
            if member.state is State.REJECTED:
                self.rejected.add(name)

    @rule(data=st.data(), state=st.sampled_from(ChangeState), right=st.booleans(), heard=st.booleans())
    def somebody_says(self, data: st.DataObject, state: ChangeState, right: bool, heard: bool) -> None:
        """A device gets on with what is desired of it; its word may be lost, or come later. An end is an end."""
        device = self._one(data)
        last = device.unheard or device.told
        if last.desired == device.desired and last.state in twin.ENDED:
            return
        in_force = device.desired if state is ChangeState.CURRENT else device.told.in_force
        shown = Shown(device.desired, in_force, state, as_desired=right or device.brings is not Meant.NEW)
        if heard and device.present:
            device.told = shown
            device.unheard = None  # what is older than this counts no longer
        else:
            device.unheard = shown

    @rule(data=st.data(), waits=st.booleans(), step_s=st.sampled_from([1, 5, 60]))
    def several_do_what_is_desired(self, data: st.DataObject, waits: bool, step_s: int) -> None:
        """Or wait for their lease; and then there is a look."""
        ready = [name for name, each in self.fleet.items() if each.present and each.is_unresolved]
        for name in data.draw(st.sets(st.sampled_from(sorted(ready)))) if ready else ():
            device = self.fleet[name]
            state = ChangeState.DEFERRED if waits else ChangeState.CURRENT
            device.told = Shown(device.desired, 0 if waits else device.desired, state, as_desired=not waits)
            device.unheard = None
        self._look(step_s, "")

    @rule(laggards=st.sets(st.sampled_from(DEVICES), max_size=3), rounds=st.integers(1, 6))
    def a_while_passes(self, laggards: set[str], rounds: int) -> None:
        """All is well but for some."""
        for _ in range(rounds):
            for name, device in self.fleet.items():
                if device.present and device.is_unresolved and name not in laggards:
                    device.told = Shown(device.desired, device.desired, ChangeState.CURRENT, as_desired=True)
                    device.unheard = None
            self._look(20, "")

    @rule(data=st.data())
    def is_heard_late(self, data: st.DataObject) -> None:
        device = self._one(data)
        if device.unheard is not None:
            device.told, device.unheard = device.unheard, None

    @rule(data=st.data(), excused=st.booleans())
    def comes_or_goes(self, data: st.DataObject, excused: bool) -> None:
        device = self._one(data)
        device.present = not device.present
        device.excused = excused and not device.present

    @rule(data=st.data())
    def falls_ill_or_recovers(self, data: st.DataObject) -> None:
        device = self._one(data)
        device.healthy = not device.healthy

    @precondition(lambda self: len(self.fleet) > 8)
    @rule(data=st.data())
    def is_deleted(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fleet)))
        del self.fleet[name]
        self.wanted.discard(name)
        self.rejected.discard(name)

    @rule(number=st.integers(12, 16))
    def joins(self, number: int) -> None:
        name = f"cam-{number}"
        self.fleet.setdefault(name, self._device(name))
        self.wanted.add(name)

    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        if len(self.wanted) > 8:
            self.wanted.discard(data.draw(st.sampled_from(sorted(self.fleet))))

    @precondition(lambda self: self.true_ms > 100_000)
    @rule(data=st.data())
    def somebody_desires_something_else(self, data: st.DataObject) -> None:
        self._desire(self._one(data), Meant.OTHER)

    @rule(by_ms=st.integers(-(10**10), 10**10))
    def the_clock_jumps(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule()
    def the_server_is_restarted(self) -> None:
        self.fresh = True

    @rule(what=st.sampled_from(["approve", "hold", "resume", "resume"]))
    def somebody_acts(self, what: str) -> None:
        self._act(what)

    @precondition(lambda self: self.true_ms > 400_000)
    @rule(what=st.sampled_from(["cancel", "roll_back"]))
    def somebody_ends_it(self, what: str) -> None:
        self._act(what)

    def _act(self, what: str) -> None:
        try:
            match what:
                case "approve":
                    self.rollout = rollout_acts.approved(self.rollout, "bob")
                case "hold":
                    self.rollout = rollout_acts.held(self.rollout, "bob", "why")
                case "resume":
                    self.rollout = rollout_acts.resumed(self.rollout)
                case "cancel":
                    self.rollout = rollout_acts.canceled(self.rollout, "bob", "why")
                case _:
                    self.rollout = rollout_acts.rolled_back(self.plan, self.rollout, "bob", "why")
        except NotNowError:
            pass

    def teardown(self) -> None:
        """Whatever happens, or does not happen any more, it ends or says what it waits for."""
        if not hasattr(self, "rollout"):
            return
        timers = self.plan.timers
        tries = 2 + self.plan.retries.failed + self.plan.retries.timed_out
        long_s = (timers.queued_s + timers.total_s * 2 + 600) * (tries + len(self.plan.waves)) * 4
        for _ in range(long_s // 60):
            if self.rollout.head.phase in ENDS | {Phase.PAUSED, Phase.WAITING_APPROVAL}:
                break
            turn = look(self.plan, self.rollout, self._world(), step_ms=60_000, now_ms=self.now_ms)
            for act in turn.acts:
                if act.kind is ActKind.COMMIT:
                    self.committed = True
                else:
                    self._desire(self.fleet[act.device], Meant.NEW if act.kind is ActKind.RELEASE else Meant.OLD)
            self.rollout = turn.rollout
        head = self.rollout.head
        assert head.phase in ENDS | {Phase.PAUSED, Phase.WAITING_APPROVAL}, (head.phase, head.waits)
        if head.phase is Phase.PAUSED:
            assert head.pause is not None
            assert head.pause.text


Rollouts.TestCase.settings = settings(
    max_examples=60, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRollouts = Rollouts.TestCase

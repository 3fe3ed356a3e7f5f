"""What a plan would do before it does it: whom it means, in what order, what is wrong with it, what holds it up."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from fleet_server.change import layers, selector
from fleet_server.change.bringing import Bringing, Staged, document_after, layer_of
from fleet_server.change.rollout_plan import SECOND_FOR, Plan, faults
from fleet_server.change.rollout_rules import Spared, in_waves, order_of, takes_s
from fleet_server.change.rollout_state import Known, Member, State
from fleet_server.change.rollouts import MEMBERS_MAX
from fleet_server.change.sight import Sight, placed
from fleet_server.change.store import LayerStore

NAMES_TOLD_MAX: Final = 20


class BadPlanError(Exception):
    """A plan that cannot be begun; ``faults``: why, one line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class Preview(NamedTuple):
    """What a plan would do. ``waves``: devices of each, in the order of their turns. ``faults``: why it cannot begin;
    ``warnings``: what will hold it up. ``takes_s``: how long at least. ``second``: whether a second person has to
    agree.
    """

    waves: tuple[tuple[str, ...], ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    takes_s: int
    second: bool


class Planner:
    """Any thread; every call may raise StoreError."""

    def __init__(self, sight: Sight, bringing: Bringing, layer_store: LayerStore) -> None:
        self._sight = sight
        self._bringing = bringing
        self._layers = layer_store

    def meant(self, plan: Plan, staged: Staged) -> frozenset[str]:
        """Who is meant by now. Where the change goes into its layer that is everybody whom it makes different: who is
        no longer selected, or never was, would get it at the end without a turn.
        """
        affected = self._affected(staged)
        return affected if plan.into_layer else self._selected(plan, affected)

    def _affected(self, staged: Staged) -> frozenset[str]:
        fleet = self._sight.fleet()
        return frozenset(self._bringing.affected(staged, (placed(device) for device in fleet.values())))

    def _selected(self, plan: Plan, affected: frozenset[str]) -> frozenset[str]:
        return self._sight.fitting(selector.parse(plan.where), affected) if plan.where else affected

    def planned(self, rollout: str, plan: Plan) -> tuple[Preview, Mapping[str, Known]]:
        """What it would do under that id, and to whom."""
        found = self._faults(plan)
        if found:
            return Preview((), tuple(found), (), 0, second=False), {}
        staged = self._bringing.staged(plan)
        affected = self._affected(staged)
        meant = self._selected(plan, affected)
        found = list(_faults_of_choice(plan, affected, meant))
        devices = self._known(plan, meant)
        numbers = in_waves(plan, rollout, devices)
        order = sorted(devices, key=lambda device: order_of(rollout, device))
        waves = tuple(tuple(device for device in order if numbers[device] == wave) for wave in range(len(plan.waves)))
        second = plan.approved_by_second or any(each.device_class in SECOND_FOR for each in devices.values())
        warnings = tuple(self._warnings(plan, devices, waves))
        return Preview(waves, tuple(found), warnings, takes_s(plan, [len(wave) for wave in waves]), second), devices

    def _faults(self, plan: Plan) -> list[str]:
        found = faults(plan)
        try:
            name = layer_of(plan.layer)
        except ValueError as error:
            return [*found, str(error)]
        own = self._sight.fleet().get(name.name)
        classes = layers.classes_of(name, "" if own is None else own.registration.device_class)
        if any(each not in layers.classes_of(layers.FLEET) for each in classes):
            return [*found, f"layer: nothing is known of {name}"]
        document = document_after(self._layers.layer(name), plan.patch)
        return found + [f"patch.{fault}" for fault in layers.faults(document, classes)]

    def _known(self, plan: Plan, meant: frozenset[str]) -> Mapping[str, Known]:
        fleet, groups = self._sight.fleet(), self._sight.groups()
        fitting = {
            number: self._sight.fitting(selector.parse(wave.where), meant)
            for number, wave in enumerate(plan.waves)
            if wave.where
        }
        return {
            device: self._sight.known(
                fleet[device],
                groups.get(device, ()),
                waves=frozenset(number for number, those in fitting.items() if device in those),
            )
            for device in sorted(meant)
        }

    def _warnings(self, plan: Plan, devices: Mapping[str, Known], waves: Sequence[Sequence[str]]) -> Iterator[str]:
        absent = sum(not known.present for known in devices.values())
        if absent:
            yield f"{absent} of {len(devices)} devices are not there now; each has its turn once it is"
        least = plan.spread.unit_working_min
        members = {device: Member(State.QUEUED, 0, 0) for device in devices}
        others = self._sight.others_working(devices.keys()) if least else {}
        spared = Spared(plan.spread, members, devices, others)
        held_up = {device: spared.why_not(members[device], known) for device, known in devices.items()}
        for why, count in sorted(Counter(each for each in held_up.values() if each).items()):
            yield f"{why}: as it is now, none of its {count} would have a turn"
        control = plan.control
        for wave, chosen in list(zip(plan.waves, waves, strict=True))[:-1]:
            if wave.size != "0" and not chosen:
                yield f"wave {wave.name}: nobody is in it"
            elif control is not None and len(chosen) < control.sample_min:
                yield f"wave {wave.name}: {len(chosen)} devices are too few to compare, needs {control.sample_min}"
        if control is not None and len(plan.waves) == 1:
            yield "control: there is nobody to compare the only wave with"


def _faults_of_choice(plan: Plan, affected: frozenset[str], meant: frozenset[str]) -> Iterator[str]:
    if not meant:
        yield "nobody is meant: no device's configuration would be another one"
        return
    if len(meant) > MEMBERS_MAX:
        yield f"expected at most {MEMBERS_MAX} devices, got {len(meant)}"
    left_out = sorted(affected - meant)
    if left_out and plan.into_layer:
        yield (
            f"where: leaves out {len(left_out)} devices that layer {plan.layer} concerns too, and which would get the"
            f" change at the end without a wave: {', '.join(left_out[:NAMES_TOLD_MAX])}; change the layer of a group"
            " or a node, or say into_layer = false"
        )

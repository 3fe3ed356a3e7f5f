"""How a rollout's change comes to a device: its layer with the change in it, composed for that device alone and
desired there; and back again. Over the ports of twins and layers.

While a rollout goes on, its layer is as it was. A device that has had its turn is held by the rollout: what its
layers make reaches it through the rollout only, with the change in it. When the rollout has ended well the change
goes into the layer, the devices are let go, and what their layers make is what they have.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from broker_config import twin as contract
from fleet_server.change.layers import Composed, Layer, LayerDocument, Layering, LayerKind, LayerName, Placed, revised
from fleet_server.change.rollout_plan import Plan
from fleet_server.change.rollout_state import Meant, Shown
from fleet_server.change.store import LayerStore, TwinStore
from fleet_server.change.twins import Twin, Wish, deviating

DEVICES_A_PART: Final = 500
UNKNOWN_CLASS: Final = "its device class is not known here"


class Composing(Protocol):
    """What else follows of a change of a layer; :class:`fleet_server.change.composing.Composer` is it."""

    def put_layer(self, name: LayerName, document: LayerDocument, *, expected: int | None, by: str) -> object:
        """Put the layer, and desire what follows of it for every device that nobody holds."""

    def compose(self, devices: Sequence[str], *, by: str, origin: str) -> object:
        """Desire what the layers of *devices* make."""


class Brought(NamedTuple):
    """How a device stands to a rollout. ``behind``: it has had its turn, and what is to be desired of it is not what
    is: another layer was changed meanwhile, or the server was killed in between.
    """

    meant: Meant
    version: int
    shown: Shown | None
    held_by: str
    refused: str
    behind: bool


class Staged(NamedTuple):
    """What the layers make without the change, and with it."""

    old: Layering
    new: Layering
    name: LayerName
    patch: LayerDocument


class BadLayerError(ValueError):
    """Not the name of a layer."""


def layer_of(text: str) -> LayerName:
    """Read ``fleet``, ``class/body_camera``, ``node/station-7``, ``group/night`` or ``device/cam-7``. Raises
    BadLayerError.
    """
    kind, _, name = text.partition("/")
    if kind not in set(LayerKind) or (kind == LayerKind.FLEET) != (name == ""):
        kinds = ", ".join(each if each is LayerKind.FLEET else f"{each}/NAME" for each in LayerKind)
        raise BadLayerError(f"layer: expected one of {kinds}, got {text[:80]!r}")
    return LayerName(LayerKind(kind), name)


def document_after(layer: Layer | None, patch: LayerDocument) -> dict[str, contract.SettingValue | None]:
    """The whole layer with the change in it."""
    return contract.merged({} if layer is None else layer.document, patch)


class Bringing:
    """Any thread; every call may raise StoreError, after which some of it may be done: all of it may be repeated."""

    def __init__(
        self,
        twins: TwinStore,
        layers: LayerStore,
        composing: Composing,
        *,
        published: Callable[[Mapping[str, int]], None],
        now_ms: Callable[[], int],
    ) -> None:
        """*published*: told of each device whose desired version is new; it does not wait."""
        self._twins = twins
        self._layers = layers
        self._composing = composing
        self._published = published
        self._now_ms = now_ms

    def staged(self, plan: Plan) -> Staged:
        """What the layers are now, without the change and with it."""
        name = layer_of(plan.layer)
        held = list(self._layers.all_layers())
        groups = self._layers.groups()
        changed = _changed(name, next((layer for layer in held if layer.name == name), None), plan.patch)
        others = [layer for layer in held if layer.name != name]
        return Staged(Layering(held, groups), Layering([*others, changed], groups), name, plan.patch)

    def affected(self, staged: Staged, devices: Iterable[Placed]) -> list[str]:
        """Those whose configuration the change makes different."""
        found = []
        for placed, old, new in self._made(staged, list(devices)):
            if new is not None and old is not None and old.config != new.config:
                found.append(placed.device)
        return found

    def brought(
        self, rollout: str, staged: Staged, devices: Sequence[Placed], turned: Collection[str]
    ) -> dict[str, Brought]:
        """How each of *devices* stands; *turned*: who of them has had a turn that was not taken back."""
        twins = self._twins.twins([placed.device for placed in devices])
        return {
            placed.device: _standing(rollout, twins[placed.device], old, new, had_turn=placed.device in turned)
            for placed, old, new in self._made(staged, devices)
        }

    def release(
        self,
        rollout: str,
        plan: Plan,
        staged: Staged,
        devices: Sequence[Placed],
        *,
        by: str,
        again: Collection[str] = (),
    ) -> None:
        """Desire the change of *devices* and hold them; *again*: under a new version though it is desired already."""
        wishes = [
            Wish(
                placed.device,
                new.config,
                new.provenance,
                by,
                f"rollout {rollout}",
                rollout,
                plan.confirm_s,
                plan.window,
            )
            for placed, _, new in self._made(staged, devices)
            if new is not None
        ]
        names = [wish.device for wish in wishes]
        self._take_over(names, rollout)
        made = dict(self._twins.desire(wishes, now_ms=self._now_ms()))
        self._twins.hold(names, rollout)  # desiring lets go
        anew = [name for name in names if name in again and name not in made]
        if anew:
            made.update(self._twins.renew(anew, now_ms=self._now_ms()))
        self._published(made)

    def withdraw(self, rollout: str, staged: Staged, devices: Sequence[Placed], *, by: str) -> None:
        """Desire what the layers alone make, and let *devices* go."""
        wishes = [
            Wish(placed.device, old.config, old.provenance, by, f"rollout {rollout} taken back", rollout)
            for placed, old, _ in self._made(staged, devices)
            if old is not None
        ]
        self._published(self._twins.desire(wishes, now_ms=self._now_ms()))

    def commit(self, rollout: str, plan: Plan, devices: Sequence[str], *, by: str) -> None:
        """Put the change into its layer, and let *devices* go."""
        name = layer_of(plan.layer)
        document = document_after(self._layers.layer(name), plan.patch)
        self._composing.put_layer(name, document, expected=None, by=by)
        for start in range(0, len(devices), DEVICES_A_PART):
            part = devices[start : start + DEVICES_A_PART]
            self._twins.free(part, rollout)
            self._composing.compose(part, by=by, origin=f"rollout {rollout}")

    def let_go(self, rollout: str, devices: Sequence[str], *, by: str) -> None:
        """Of who is no member any more."""
        self._twins.free(devices, rollout)
        self._composing.compose(devices, by=by, origin=f"rollout {rollout} left")

    def _take_over(self, devices: Sequence[str], rollout: str) -> None:
        """From older rollouts: who asks for a release has made sure that no newer one holds them."""
        held: dict[str, list[str]] = {}
        for device, twin in self._twins.twins(devices).items():
            if twin.held_by not in {"", rollout}:
                held.setdefault(twin.held_by, []).append(device)
        for other, some in held.items():
            self._twins.free(some, other)

    def _made(
        self, staged: Staged, devices: Sequence[Placed]
    ) -> Iterable[tuple[Placed, Composed | None, Composed | None]]:
        own = self._layers.layers(LayerName(LayerKind.DEVICE, placed.device) for placed in devices)
        for placed in devices:
            layer = own.get(LayerName(LayerKind.DEVICE, placed.device))
            old = staged.old.of(placed, layer)
            if staged.name == (LayerKind.DEVICE, placed.device):
                layer = _changed(staged.name, layer, staged.patch)
            yield placed, old, staged.new.of(placed, layer)


def _changed(name: LayerName, layer: Layer | None, patch: LayerDocument) -> Layer:
    return revised(name, layer, document_after(layer, patch), at_ms=0, by="")


def _standing(rollout: str, twin: Twin, old: Composed | None, new: Composed | None, *, had_turn: bool) -> Brought:
    if old is None or new is None:
        return Brought(Meant.OTHER, twin.desired_version, _shown(twin), twin.held_by, UNKNOWN_CLASS, behind=False)
    desired = {} if twin.aim is None else dict(twin.aim.config)
    is_new, is_old = desired == new.config, desired == old.config
    ours = twin.held_by == rollout
    behind = False
    if twin.held_by and not ours:
        meant = Meant.OTHER
    elif is_new and is_old:
        meant = Meant.BOTH
    elif ours or is_new:
        meant, behind = Meant.NEW, had_turn and not (ours and is_new)
    else:
        meant = Meant.OLD  # or about to be: nobody but the layers has a say
    return Brought(meant, twin.desired_version, _shown(twin), twin.held_by, "", behind)


def _shown(twin: Twin) -> Shown | None:
    if twin.report is None:
        return None
    said = twin.report.reported
    as_desired = twin.aim is None or not deviating(twin.aim.config, said.config)
    return Shown(said.desired, said.in_force, said.state, as_desired, said.reason, said.waits_for)

"""Makes of layers what is desired of each device. The one door to both: a change of a layer and what follows of it
are not torn apart, and no older state of the layers is ever desired after a newer one.

What one request touches is composed before its answer; what many devices follow, a thread composes, in parts, between
which others may write. It begins with all devices: whatever was under way when the server went is made up for.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event, Lock
from typing import Final, NamedTuple, Protocol

from broker_config.text import shown
from broker_config.twin import SettingValue
from fleet_server.change.layers import (
    FLEET,
    Composed,
    Group,
    Layer,
    LayerDocument,
    Layering,
    LayerKind,
    LayerName,
    Placed,
    revised,
)
from fleet_server.change.store import LayerStore, Revised, TwinStore
from fleet_server.change.twins import Wish, changes
from fleet_server.registry.model import PATH_SEPARATOR
from fleet_server.telemetry.store import StoreError

PART_MAX: Final = 100
"""Devices of one transaction: others who write wait so long at most."""
BETWEEN_S: Final = 0.005
"""From one part to the next, or who waits for the lock or the database would not have its turn."""
AT_ONCE_MAX: Final = 50
"""So many devices are composed before the answer to who asked; more are left to the thread."""
AGAIN_S: Final = 5.0
REGISTRY: Final = "registry"
"""Who wants what follows of a device's place or class."""

Published = Callable[[Mapping[str, int]], None]
"""Told of each device whose desired version is new; any thread, and it does not wait."""

logger = logging.getLogger(__name__)


class Placing(Protocol):
    """What is asked of the registry. Any thread; raises StoreError."""

    def placed(self, devices: Sequence[str] | None) -> Sequence[tuple[str, str, str]]:
        """Device, class and path of those of *devices* that it knows; None: of all."""


class Difference(NamedTuple):
    """What would change for a device: setting -> (before, after), None its default."""

    device: str
    settings: Mapping[str, tuple[SettingValue | None, SettingValue | None]]


class Composer:
    """Any thread; ``run`` it once."""

    def __init__(
        self,
        twins: TwinStore,
        layers: LayerStore,
        registry: Placing,
        *,
        published: Published,
        now_ms: Callable[[], int],
    ) -> None:
        self._twins = twins
        self._layers = layers
        self._registry = registry
        self._published = published
        self._now_ms = now_ms
        self._writing = Lock()
        self._generation = 0
        self._layering: Layering | None = None
        self._waking = Lock()
        self._work = Event()
        self._all: tuple[str, str] | None = (REGISTRY, "start")
        self._some: dict[str, tuple[str, str]] = {}

    # what operators change

    def put_layer(self, name: LayerName, document: LayerDocument, *, expected: int | None, by: str) -> Layer:
        """See :meth:`fleet_server.change.store.LayerStore.put_layer`; *document* was checked."""
        with self._writing:
            layer = self._layers.put_layer(name, document, expected=expected, by=by, now_ms=self._now_ms())
            self._layering = None
        self._follow(self._devices_of(name), by, f"layer {name}@{layer.revision}")
        return layer

    def put_group(
        self, group: str, priority: int, members: Iterable[str], *, expected: int | None, by: str
    ) -> Revised:
        """See the port."""
        with self._writing:
            done = self._layers.put_group(group, priority, members, expected=expected, now_ms=self._now_ms())
            self._layering = None
        if done.after != done.before:
            revision = 0 if done.after is None else done.after.revision
            self._follow(sorted(done.members), by, f"group {group}@{revision}")
        return done

    def drop_group(self, group: str, *, expected: int | None, by: str) -> Revised:
        """See the port."""
        with self._writing:
            done = self._layers.drop_group(group, expected=expected)
            self._layering = None
        self._follow(sorted(done.members), by, f"group {group} dropped")
        return done

    def moved(self, devices: Iterable[str]) -> None:
        """Their place or their class is another one."""
        self._later(devices, REGISTRY, "place")

    # what would follow

    def if_layer(self, name: LayerName, document: LayerDocument) -> Iterator[Difference]:
        """What would change if *document* were put there; nothing is written."""
        layer = revised(name, self._layers.layer(name), document, at_ms=0, by="")
        layering = self._layers.layering()
        own = {}
        if name.kind is LayerKind.DEVICE:
            own[name.name] = layer
        else:
            layering = layering.with_layer(layer)
        yield from self._differences(self._devices_of(name), layering, own)

    def if_group(self, group: Group) -> Iterator[Difference]:
        """What would change if it were put; one without members is as good as none."""
        before = self._layers.group(group.group)
        devices = sorted(group.members | (frozenset() if before is None else before.members))
        if before is not None:
            group = group._replace(created_ms=before.created_ms)
        yield from self._differences(devices, self._layers.layering().with_group(group), {})

    def strangers(self, devices: Sequence[str]) -> list[str]:
        """Those of *devices* that the registry does not know."""
        known = {row[0] for row in self._registry.placed(devices)}
        return [device for device in devices if device not in known]

    def _differences(
        self, devices: Sequence[str] | None, layering: Layering, own: Mapping[str, Layer]
    ) -> Iterator[Difference]:
        wanted = [row[0] for row in self._registry.placed(devices)]
        for start in range(0, len(wanted), PART_MAX):
            part = wanted[start : start + PART_MAX]
            before = self._twins.configs(part)
            for placed, made in self._composed(part, layering, own):
                found = changes(before.get(placed.device, {}), made.config)
                if found:
                    yield Difference(placed.device, found)

    # the work

    def compose(self, devices: Sequence[str], *, by: str, origin: str, rollout: str = "") -> Mapping[str, int]:
        """Desire now what the layers of *devices* make; the new versions. *rollout*: which one releases it. Raises
        StoreError: some of it may be desired, and the rest is not.
        """
        out: dict[str, int] = {}
        for start in range(0, len(devices), PART_MAX):
            part = devices[start : start + PART_MAX]
            with self._writing:
                if self._layering is None:
                    self._layering = self._layers.layering()
                wishes = [
                    Wish(placed.device, made.config, made.provenance, by, origin, rollout)
                    for placed, made in self._composed(part, self._layering, {})
                ]
                made = self._twins.desire(wishes, now_ms=self._now_ms()) if wishes else {}
            if made:
                self._published(made)
                out.update(made)
        return out

    def run(self, stop: Event) -> None:
        """Compose what is to be composed until *stop*."""
        failing = False
        while not stop.is_set():
            self._work.wait(AGAIN_S)
            self._work.clear()
            try:
                while self.turn() and not stop.wait(BETWEEN_S):
                    failing = False
            except StoreError as error:
                logger.log(
                    logging.DEBUG if failing else logging.WARNING,
                    "what is desired cannot be kept up to date",
                    extra={"error": shown(error)},
                )
                failing = True
                stop.wait(AGAIN_S)
                self._work.set()

    def turn(self) -> bool:
        """Compose one part of what waits; whether there may be more. Raises StoreError: it waits still."""
        everything = self._all
        if everything is not None:
            self._later([row[0] for row in self._registry.placed(None)], *everything)
            with self._waking:
                if self._all is everything:  # else another change came meanwhile
                    self._all = None
        with self._waking:
            part = dict(itertools.islice(self._some.items(), PART_MAX))
        reasons: dict[tuple[str, str], list[str]] = {}
        for device, reason in part.items():
            reasons.setdefault(reason, []).append(device)
        for (by, origin), devices in reasons.items():
            self.compose(devices, by=by, origin=origin)
        with self._waking:
            for device, reason in part.items():
                if self._some[device] is reason:  # else it has to be composed again: something came meanwhile
                    del self._some[device]
        return bool(part)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be composed."""
        with self._waking:
            return self._all is None and not self._some

    def wake(self) -> None:
        """Look at once whether there is something to do, such as that it is to stop."""
        self._work.set()

    def _follow(self, devices: Sequence[str] | None, by: str, origin: str) -> None:
        """A change was written, and these devices may follow it."""
        if devices is None:
            with self._waking:
                self._all = (by, origin)
            self._work.set()
        elif len(devices) > AT_ONCE_MAX:
            self._later(devices, by, origin)
        else:
            try:
                self.compose(devices, by=by, origin=origin)
            except StoreError:  # the change itself is written, so it is not to be told that it was not
                self._later(devices, by, origin)

    def _later(self, devices: Iterable[str], by: str, origin: str) -> None:
        reason = (by, origin)  # another object at each call, and known again by that
        with self._waking:
            self._some.update(dict.fromkeys(devices, reason))
        self._work.set()

    def _devices_of(self, name: LayerName) -> Sequence[str] | None:
        """Those for whom the layer can count; None: all."""
        if name == FLEET:
            return None
        if name.kind is LayerKind.DEVICE:
            return [name.name]
        if name.kind is LayerKind.GROUP:
            group = self._layers.group(name.name)
            return [] if group is None else sorted(group.members)
        rows = self._registry.placed(None)
        if name.kind is LayerKind.DEVICE_CLASS:
            return [device for device, device_class, _ in rows if device_class == name.name]
        return [device for device, _, path in rows if name.name in path.split(PATH_SEPARATOR)]

    def _composed(
        self, devices: Sequence[str], layering: Layering, own: Mapping[str, Layer]
    ) -> Iterator[tuple[Placed, Composed]]:
        """*own*: layers of single devices, instead of those that are there."""
        names = [LayerName(LayerKind.DEVICE, device) for device in devices if device not in own]
        held = {name.name: layer for name, layer in self._layers.layers(names).items()} | dict(own)
        for row in self._registry.placed(devices):
            placed = Placed(*row)
            made = layering.of(placed, held.get(placed.device))
            if made is not None:
                yield placed, made

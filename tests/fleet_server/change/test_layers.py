"""What layers make together, and where each leaf comes from."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import device_classes
from fleet_server.change.layers import (
    FLEET,
    Group,
    Layer,
    LayerDocument,
    Layering,
    LayerKind,
    LayerName,
    LayerValue,
    Leaf,
    Placed,
    Source,
    classes_of,
    composed,
    faults,
    revised,
)

CAMERA = "body_camera"
KNOWN = device_classes.load(CAMERA).config
VALUES: Mapping[str, st.SearchStrategy[LayerValue]] = {
    "pre_event_s": st.integers(0, 120),
    "battery_low_pct": st.floats(5, 50),
    "mute_allowed": st.booleans(),
    "video": st.sampled_from(["720p", "1080p"]),
    "keep_alive_s": st.integers(5, 120),
    "no_such_setting": st.integers(),  # another class's
}
documents = st.fixed_dictionaries({}, optional={name: values | st.none() for name, values in VALUES.items()})
NODES = ("hq", "station-7", "post-3")
GROUPS = ("night", "pilot", "spare")
names = st.sampled_from(
    [
        FLEET,
        LayerName(LayerKind.DEVICE_CLASS, CAMERA),
        LayerName(LayerKind.DEVICE_CLASS, "host"),
        *(LayerName(LayerKind.ORG_NODE, node) for node in (*NODES, "station-8")),
        *(LayerName(LayerKind.GROUP, group) for group in GROUPS),
    ]
)
layers = st.dictionaries(names, st.lists(documents, min_size=1, max_size=3), max_size=8)
groups = st.dictionaries(
    st.sampled_from(GROUPS), st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=3
)


def written(name: LayerName, said: list[LayerDocument]) -> Layer:
    """The layer after each of *said* was put."""
    layer = None
    for document in said:
        layer = revised(name, layer, document, at_ms=0, by="test")
    assert layer is not None
    return layer


def winner(setting: str, order: list[LayerName], said: Mapping[LayerName, list[LayerDocument]]) -> object:
    """By brute force: the last layer in *order* whose newest document has *setting*."""
    for name in reversed(order):
        newest = said.get(name, [{}])[-1]
        if setting in newest:
            return None if newest[setting] is None else (newest[setting], name)
    return None


@given(layers, groups, st.none() | documents, st.integers(0, 3))
def test_each_leaf_is_what_the_last_layer_that_has_it_says(
    said: dict[LayerName, list[LayerDocument]],
    grouped: dict[str, tuple[int, int, bool]],
    own: LayerDocument | None,
    depth: int,
) -> None:
    members = {True: frozenset({"cam-7"}), False: frozenset({"cam-8"})}
    made = [Group(name, *figures[:2], 1, members[figures[2]]) for name, figures in grouped.items()]
    placed = Placed("cam-7", CAMERA, "/".join(NODES[:depth]))
    device = LayerName(LayerKind.DEVICE, "cam-7")
    own_layer = None if own is None else written(device, [own])
    found = Layering([written(*each) for each in said.items()], made).of(placed, own_layer)
    assert found is not None
    mine = sorted(
        (each for each in made if "cam-7" in each.members), key=lambda g: (g.priority, g.created_ms, g.group)
    )
    order = [
        FLEET,
        LayerName(LayerKind.DEVICE_CLASS, CAMERA),
        *(LayerName(LayerKind.ORG_NODE, node) for node in NODES[:depth]),
        *(LayerName(LayerKind.GROUP, group.group) for group in mine),
        device,
    ]
    everything = {**said, **({} if own is None else {device: [own]})}
    expected = {setting: winner(setting, order, everything) for setting in KNOWN}
    got = {name: (value, found.provenance[name].layer) for name, value in found.config.items()}
    assert got == {name: each for name, each in expected.items() if each is not None}
    assert found.config.keys() == found.provenance.keys()


@given(st.lists(documents, min_size=1, max_size=6))
def test_a_leaf_has_the_revision_that_gave_it_its_value(said: list[LayerDocument]) -> None:
    layer, revision, since = None, 0, dict[str, tuple[LayerValue, int]]()
    for document in said:
        if document != {name: value for name, (value, _) in since.items()} or layer is None:
            revision += 1
        since = {
            name: since[name] if name in since and since[name][0] == value else (value, revision)
            for name, value in document.items()
        }
        layer = revised(FLEET, layer, document, at_ms=0, by="test")
    assert layer is not None
    assert layer.revision == revision
    assert dict(layer.leaves) == since


@given(layers, documents)
def test_who_leaves_a_group_loses_its_settings(
    said: dict[LayerName, list[LayerDocument]], document: LayerDocument
) -> None:
    others = {name: each for name, each in said.items() if name.kind is not LayerKind.GROUP}
    night = LayerName(LayerKind.GROUP, "night")
    held = [*(written(*each) for each in others.items()), written(night, [document])]
    placed = Placed("cam-7", CAMERA, "hq")
    within = Layering(held, [Group("night", 5, 0, 1, frozenset({"cam-7"}))]).of(placed, None)
    without = Layering(held, [Group("night", 5, 0, 2, frozenset())]).of(placed, None)
    never = Layering([written(*each) for each in others.items()], []).of(placed, None)
    assert without == never
    assert within is not None
    assert {name for name, each in within.provenance.items() if each.layer == night} == {
        name for name, value in document.items() if value is not None and name in KNOWN
    }


def test_true_is_not_one_and_a_repeated_value_is_no_change() -> None:
    first = revised(FLEET, None, {"mute_allowed": True, "pre_event_s": 1}, at_ms=0, by="a")
    assert revised(FLEET, first, {"pre_event_s": 1, "mute_allowed": True}, at_ms=9, by="b") is first
    second = revised(FLEET, first, {"mute_allowed": 1, "pre_event_s": 1}, at_ms=9, by="b")
    assert second.leaves == {"mute_allowed": Leaf(1, 2), "pre_event_s": Leaf(1, 1)}
    assert second.leaves["mute_allowed"].value is not True


def test_a_value_that_the_class_does_not_take_any_more_is_passed_over() -> None:
    low = Layer(FLEET, 1, {"pre_event_s": Leaf(30, 1)})
    high = Layer(LayerName(LayerKind.GROUP, "night"), 1, {"pre_event_s": Leaf(9_999, 1)})
    assert composed([low, high], KNOWN) == ({"pre_event_s": 30}, {"pre_event_s": Source(FLEET, 1)})


def test_a_device_of_an_unknown_class_is_told_nothing() -> None:
    layering = Layering([written(FLEET, [{"keep_alive_s": 30}])], [])
    assert layering.of(Placed("thing-1", "", ""), None) is None
    assert layering.of(Placed("thing-1", "toaster", ""), None) is None


@pytest.mark.parametrize(
    ("name", "document", "wrong"),
    [
        (FLEET, {"keep_alive_s": 30, "video": "720p"}, []),  # of every class, and of one
        (FLEET, {"video": None}, []),
        (
            FLEET,
            {"videos": "720p", "pre_event_s": 121},
            ["videos: unknown", "pre_event_s: expected 0 to 120 s, got 121"],
        ),
        (LayerName(LayerKind.DEVICE_CLASS, "host"), {"video": "720p"}, ["video: unknown"]),
        (LayerName(LayerKind.DEVICE, "cam-7"), {"video": True}, ["video: expected string, got True"]),
        (FLEET, {f"x{n}": None for n in range(257)}, ["settings: expected at most 256, got 257"]),
    ],
)
def test_everything_wrong_is_told(name: LayerName, document: LayerDocument, wrong: list[str]) -> None:
    found = faults(document, classes_of(name, CAMERA))
    assert found[: len(wrong)] == wrong
    assert bool(found) == bool(wrong)

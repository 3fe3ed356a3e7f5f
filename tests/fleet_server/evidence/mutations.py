"""Bundles that were tampered with, made from a good one: what was done, and which claims must not be confirmed then.

A clever forger mends ``index.json``; one who has the log's key writes another log; one who has the device's key lies.
"""

import base64
import copy
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

from broker_config import manifest
from fleet_server.access.notes import Signer
from tests.fleet_server.access.drafts import LOG, SIGNER
from tests.fleet_server.evidence.bundles import (
    WITNESS,
    Camera,
    Made,
    Plan,
    Site,
    arrived,
    indexed,
    made,
    zip_of,
)

READABLE: Final = "readable"
EXPORTED: Final = "as exported"
UNALTERED: Final = "unaltered"
DEVICE: Final = "from that device"
COMPLETE: Final = "complete"
EXISTED: Final = "existed by then"
LOG_SAME: Final = "log not rewritten"
TOLD: Final = "no events hidden"
FLIPS: Final = 5
"""Bits of each member."""


@dataclass(frozen=True)
class Mutation:
    """``refused``: claims of which at least one must fail. ``doubted``: none fails, but these are not confirmed, for
    what would prove them is gone. ``without``: options that are not given.
    """

    name: str
    data: bytes
    refused: frozenset[str] = frozenset()
    doubted: frozenset[str] = frozenset()
    without: tuple[str, ...] = ()


def mutation(name: str, data: bytes, *refused: str) -> Mutation:
    return Mutation(name, data, frozenset(refused))


def clever(name: str, good: Made, changed: Mapping[str, bytes], *refused: str, gone: Sequence[str] = ()) -> Mutation:
    members = {n: data for n, data in {**good.members, **changed}.items() if n not in gone}
    return mutation(name, zip_of(indexed(members)), *refused)


def expected_of(member: str) -> tuple[str, ...]:
    """Which claims a changed member may break."""
    kind = member.rpartition("/")[2]
    return {
        "original": (UNALTERED,),
        "manifest.dsse.json": (READABLE, UNALTERED, DEVICE),
        "certificate.pem": (DEVICE,),
        "events.ndjson": (LOG_SAME, TOLD),
        "checkpoint": (LOG_SAME,),
        "consistency.json": (LOG_SAME,),
        "time.tsr": (EXISTED,),
        "index.json": (READABLE, EXPORTED, TOLD),
    }.get(kind, (COMPLETE,) if member.startswith("journal/") else (EXPORTED,))


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def flips(good: Made, rng: random.Random) -> Iterator[Mutation]:
    """Single bits of every member, by who mends the index and by who does not."""
    for member, data in good.members.items():
        for number in range(FLIPS):
            spot = spots(member, data, rng)
            changed = {member: flipped(data, spot)}
            name = f"bit {spot} of {member}"
            if member == "index.json":
                yield mutation(name, zip_of({**good.members, **changed}), *expected_of(member))
            elif number:
                yield clever(name, good, changed, *expected_of(member))
            else:
                yield mutation(
                    f"{name}, not mended", zip_of({**good.members, **changed}), EXPORTED, *expected_of(member)
                )


def spots(member: str, data: bytes, rng: random.Random) -> int:
    """A bit that says something. Of a time stamp its last bytes, the signature: some before it are nobody's. Of a
    checkpoint its text and the log's signature: a witness's line that is spoiled is none, and that is told apart.
    """
    if member.endswith("time.tsr"):
        return rng.randrange((len(data) - 60) * 8, len(data) * 8)
    if member.endswith("/checkpoint"):
        first_line = data.index(b"\n", data.index(b"\n\n") + 2)
        return rng.randrange(first_line * 8)
    return rng.randrange(len(data) * 8)


def cuts(good: Made, rng: random.Random) -> Iterator[Mutation]:
    whole = zip_of(good.members)
    for size in (0, 1, 21, 22, 100, *(rng.randrange(len(whole)) for _ in range(8)), len(whole) - 1):
        yield mutation(f"cut to {size}", whole[:size], READABLE)


def lines_changed(good: Made) -> Iterator[Mutation]:
    """What is done to a history or a journal, line by line."""
    doings: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "the first is gone": lambda lines: lines[1:],
        "the second is gone": lambda lines: lines[:1] + lines[2:],
        "the last is gone": lambda lines: lines[:-1],
        "two are swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
        "the end is swapped": lambda lines: [*lines[:-2], lines[-1], lines[-2]],
        "one is there twice": lambda lines: [*lines, lines[-1]],
        "nothing is left": lambda _: [],
    }
    for member, data in good.members.items():
        if member.endswith(".ndjson"):
            claims = (COMPLETE, EXPORTED) if member.startswith("journal/") else (TOLD, DEVICE, READABLE)
            for name, do in doings.items():
                lines = do(data.splitlines(keepends=True))
                yield clever(f"{member}: {name}", good, {member: b"".join(lines)}, *claims)


def members_changed(good: Made) -> Iterator[Mutation]:
    first, second, *_ = (each.upload for each in good.arrivals)
    other = good.arrivals[-1].upload
    for name, claims in {
        "original": (UNALTERED,),
        "manifest.dsse.json": (UNALTERED,),
        "certificate.pem": (DEVICE,),
        "events.ndjson": (TOLD, DEVICE),
    }.items():
        one, two = f"pieces/{first}/{name}", f"pieces/{other}/{name}"
        yield clever(
            f"{name} of two pieces are swapped", good, {one: good.members[two], two: good.members[one]}, *claims
        )
        yield clever(f"{one} is gone", good, {}, READABLE, EXPORTED, *claims, gone=[one])
    for upload in (first, second, good.arrivals[2].upload):
        gone = [name for name in good.members if upload in name]
        yield clever(f"segment {upload} is gone", good, {}, COMPLETE, gone=gone)
    yield clever("a recording is gone", good, {}, EXPORTED, gone=[name for name in good.members if other in name])
    yield clever("a journal is gone", good, {}, EXPORTED, gone=["journal/1.ndjson"])
    yield clever("a report is added", good, {"report.txt": b"all is well\n"}, EXPORTED)
    yield clever("an unknown member is added", good, {f"log/{LOG}/extra": b"x"}, EXPORTED)
    yield clever("the checkpoint is gone", good, {}, LOG_SAME, gone=[f"log/{LOG}/checkpoint"])
    yield mutation(
        "the index is gone", zip_of({n: d for n, d in good.members.items() if n != "index.json"}), READABLE
    )
    export = json.loads(good.members["index.json"])
    export["export"] = "00" * 8
    yield mutation("another export", zip_of({**good.members, "index.json": json.dumps(export).encode()}), TOLD)


def journals_edited(good: Made) -> Iterator[Mutation]:
    """An event of the journal is another, and every batch after it is chained anew."""
    head, *rest = (json.loads(line) for line in good.members["journal/1.ndjson"].splitlines())
    camera = copy.copy(good.cameras[0])
    camera.batches = forged(good.cameras[0])
    lines = [
        head,
        *({"seq": each["seq"], "payload": b64(data)} for each, data in zip(rest, camera.batches, strict=True)),
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    yield clever("the journal is another, chained anew", good, {"journal/1.ndjson": data}, COMPLETE)


def forged(camera: Camera) -> list[bytes]:
    twin = copy.copy(camera)
    twin.batches = []
    for number in range(len(camera.batches)):
        twin.told(3 if number == 1 else 1)
    return twin.batches


def logs_rewritten(good: Made, plan: Plan) -> Iterator[Mutation]:
    """Another history, by who has the log's key and by who has none; and one that leaves something out."""
    late = replace(plan, noise=7)
    by_another = made(replace(late, signer=Signer(SIGNER.name, bytes(32))))
    yield mutation("the log is another, with a new key", zip_of(by_another.members), LOG_SAME)
    rewritten = made(late)
    seen = f"log/{LOG}/anchors/2/checkpoint"
    kept = {**rewritten.members, seen: good.members[seen]}
    yield mutation(
        "the log is another, with the same key, and the witness's word stays", zip_of(indexed(kept)), LOG_SAME
    )
    nobody = made(replace(late, witness=None, stamp=None))
    yield Mutation(
        "the log is another, with the same key, and no witness has a word in it",
        zip_of(nobody.members),
        doubted=frozenset({LOG_SAME, EXISTED}),
    )
    yield Mutation(
        "no witness is asked", zip_of(good.members), doubted=frozenset({LOG_SAME}), without=("--witness", "--tsa-ca")
    )
    false_witness = made(replace(plan, witness=Signer(WITNESS.name, bytes(32), WITNESS.kind)))
    yield Mutation(
        "the witness is another of the same name", zip_of(false_witness.members), doubted=frozenset({LOG_SAME})
    )
    for index in range(3, 5):
        hidden = made(replace(plan, hide=index))
        yield mutation(f"event {index - 1} is not shown", zip_of(hidden.members), TOLD)
    doubtful = made(replace(plan, arrivals=[each._replace(doubts=("revoked",)) for each in plan.arrivals]))
    yield mutation("the certificate was revoked", zip_of(doubtful.members), DEVICE)


def stamps(good: Made, plan: Plan, other_stamp: Callable[[bytes], bytes]) -> Iterator[Mutation]:
    place = f"log/{LOG}/anchors/3/time.tsr"
    token = good.members[place]
    note = good.members[f"log/{LOG}/checkpoint"]
    at = token.index(b"\x18\x0f20") + 2  # GeneralizedTime
    earlier = token[:at] + b"2001" + token[at + 4 :]
    for name, changed in {
        "its time is another": earlier,
        "it is of another checkpoint": plan.stamp(note),
        "it is by another authority": other_stamp(good.members[f"log/{LOG}/anchors/3/checkpoint"]),
        "it is cut": token[:-7],
        "it is empty": b"",
        "it is no DER": b"\x30\x84\xff\xff\xff\xff" + token,
    }.items():
        yield clever(f"the time stamp: {name}", good, {place: changed}, EXISTED)


def lies(rng: random.Random, plan: Plan) -> Iterator[Mutation]:
    """What a device signed that does not hold, and recordings that ended early."""
    told: dict[str, dict[str, Any]] = {
        "a gap that is not told": {"gap_ms": 5_000, "told_ms": 0},
        "a gap of another length": {"gap_ms": 5_000, "told_ms": 900},
        "a gap where none is": {"told_ms": 4_000},
        "a restart that is not told": {"boot2": "0" * 16},
        "no end": {"last": False},
    }
    for name, odd in told.items():
        yield mutation(name, zip_of(lied(rng, plan, **odd).members), COMPLETE)
    two = Site()
    stranger = lied(rng, replace(plan, site=two))
    yield Mutation("a device of another site", zip_of(stranger.members), frozenset({DEVICE}))
    car = Camera(plan.site, "car-9")
    swapped = lied(rng, plan, signed_by=car)
    yield mutation("signed by another device", zip_of(swapped.members), DEVICE)
    unsigned = lied(rng, plan, key_of=car)
    yield mutation("signed by another key", zip_of(unsigned.members), DEVICE)
    expired = lied(rng, plan, src="ntp", later_ms=60 * 86_400_000)
    yield mutation("the certificate was not good any more", zip_of(expired.members), DEVICE)
    renumbered = lied(rng, plan, renumber=True)
    yield mutation("a segment that is numbered twice", zip_of(renumbered.members), COMPLETE)


def lied(rng: random.Random, plan: Plan, **odd: Any) -> Made:
    camera = Camera(plan.site)
    mine = replace(plan, cameras=[camera], arrivals=[])
    signed_by, key_of = odd.pop("signed_by", None), odd.pop("key_of", None)
    later_ms, renumber = odd.pop("later_ms", 0), odd.pop("renumber", False)
    mine.arrivals += camera.recorded(mine.store, "rec-1", 2, size=20_000, rng=rng, later_ms=later_ms, **odd)
    if signed_by is not None or key_of is not None:
        twin = copy.copy(camera)
        if signed_by is not None:
            twin.leaf, twin.chain, twin.key = signed_by.leaf, signed_by.chain, signed_by.key
        else:
            twin.key = key_of.key
        mine.arrivals[1] = arrived(mine.arrivals[1].manifest, twin.sealed(mine.arrivals[1].manifest), twin.chain)
    if renumber:
        said = mine.arrivals[1].manifest
        assert said.segment is not None
        again = manifest.Manifest(
            **{**fields_of(said), "segment": manifest.Segment("rec-1", 1, manifest.GENESIS, True)}
        )
        mine.arrivals[1] = arrived(again, camera.sealed(again), camera.chain)
    return made(mine)


def fields_of(said: manifest.Manifest) -> dict[str, Any]:
    return {name: getattr(said, name) for name in said.__struct_fields__}


def zips(good: Made) -> Iterator[Mutation]:
    """The container itself."""
    whole = zip_of(good.members)
    yield mutation("something before it", b"#!/bin/sh\n" + whole, READABLE)
    yield mutation("something behind it", whole + b"\0", READABLE)
    yield mutation("another zip behind it", whole + whole, READABLE)
    upload = good.arrivals[0].upload
    for name in (
        "../verify.py",
        "/etc/passwd",
        "pieces/../../x",
        "pieces\\x",
        "C:/x",
        "a//b",
        "pieces/",
        ".bashrc",
        "é",
    ):
        yield mutation(f"a member {name!r}", rezipped(good, {name: b"x"}), READABLE)
    yield mutation("a bomb", rezipped(good, {"report.txt": bytes(30_000_000)}, compress=True), READABLE)
    yield mutation("a member twice", rezipped(good, {f"pieces/{upload}/original": b"x"}), READABLE)
    yield mutation("a link", rezipped(good, {"report.txt": b"/etc/passwd"}, mode=0o120777), READABLE)
    yield mutation("a device", rezipped(good, {"report.txt": b""}, mode=0o020666), READABLE)
    yield mutation("members without end", crowded(100_000), READABLE)
    at = whole.rindex(b"PK\5\6")
    yield mutation(
        "a directory of 4 GiB", whole[: at + 12] + struct.pack("<I", 2**32 - 2) + whole[at + 16 :], READABLE
    )
    yield mutation("a comment", whole[:-2] + b"\5\0hello", READABLE)
    first = whole.index(b"PK\1\2")
    yield mutation("it says that it is encrypted", flipped(whole, (first + 8) * 8), READABLE)
    yield mutation("two members at one place", overlapped(whole), READABLE)
    name_at = whole.index(b"index.json")
    yield mutation("another name at the place itself", whole[:name_at] + b"xndex" + whole[name_at + 5 :], READABLE)


def rezipped(good: Made, added: Mapping[str, bytes], *, compress: bool = False, mode: int = 0o100444) -> bytes:
    out = BytesIO(zip_of(good.members))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as file:
        for name, data in added.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.filename = name
            info.compress_type, info.external_attr = (8 if compress else 0), mode << 16
            file.NameToInfo.clear()  # which is how a zip gets one name twice
            file.writestr(info, data)
    return out.getvalue()


def crowded(count: int) -> bytes:
    """A zip of empty members."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = len(entry) * count
    return entry * count + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0)


def overlapped(whole: bytes) -> bytes:
    """The second member's place is the first one's."""
    first = whole.index(b"PK\1\2")
    second = whole.index(b"PK\1\2", first + 4)
    return whole[: second + 42] + whole[first + 42 : first + 46] + whole[second + 46 :]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def all_of(good: Made, plan: Plan, other_stamp: Callable[[bytes], bytes], seed: int) -> list[Mutation]:
    rng = random.Random(seed)
    return [
        *flips(good, rng),
        *cuts(good, rng),
        *lines_changed(good),
        *members_changed(good),
        *journals_edited(good),
        *logs_rewritten(good, plan),
        *stamps(good, plan, other_stamp),
        *lies(rng, plan),
        *zips(good),
    ]

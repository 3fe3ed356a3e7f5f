"""Whether an offer is taken."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.ids import DeviceId
from broker_config.manifest import Moment
from broker_config.transfer import Code, Offer
from fleet_server.access import ca
from fleet_server.evidence.admission import Bounds, Doubt, RefusedError, Room, Trust, check_room, offered
from tests.fleet_server.evidence.upload_rig import (
    AUTHORITIES,
    CAMERA,
    NOW,
    OTHER,
    T0,
    Authorities,
    File,
    Identity,
    identity_of,
    manifest_of,
)

DATA = b"evidence" * 100
DAY_MS = 86_400_000


def trust(**revoked: int) -> Trust:
    return Trust(AUTHORITIES.chain, lambda serial: revoked.get(f"s{serial}"), timedelta(days=60))


def file(**changes: object) -> File:
    return File(DATA, manifest_of(DATA, **changes), identity_of(CAMERA))  # type: ignore[arg-type]


def code_of(offer: Offer, device: DeviceId = CAMERA) -> Code:
    with pytest.raises(RefusedError) as refused:
        offered(offer, device, trust())
    assert refused.value.again_s == 0
    return refused.value.code


def test_an_offer_of_the_devices_own_is_taken_as_the_bytes_that_it_signed() -> None:
    taken = offered(file().offer, CAMERA, trust())
    assert taken.manifest == file().manifest
    assert taken.upload == file().upload
    assert taken.doubts == ()


def test_the_manifest_of_another_device_is_refused() -> None:
    assert code_of(file().offer, OTHER) is Code.IDENTITY


def test_a_certificate_of_another_device_is_refused() -> None:
    mixed = File(DATA, manifest_of(DATA), identity_of(OTHER))
    assert code_of(mixed.offer) is Code.IDENTITY


def other_key(good: Offer) -> Offer:
    stranger = AUTHORITIES.device(CAMERA)
    return msgspec.structs.replace(good, certificate=stranger.chain_pem)


def other_keyid(good: Offer) -> Offer:
    return msgspec.structs.replace(good, manifest=identity_of(CAMERA).signed(good.manifest.payload, keyid="0" * 32))


def other_authority(good: Offer) -> Offer:
    strangers = Authorities.new().device(CAMERA)
    return msgspec.structs.replace(
        good, manifest=strangers.signed(good.manifest.payload), certificate=strangers.chain_pem
    )


def flipped(good: Offer) -> Offer:
    (signature,) = good.manifest.signatures
    sig = bytearray(signature.sig)
    sig[-1] ^= 1
    return msgspec.structs.replace(
        good,
        manifest=msgspec.structs.replace(
            good.manifest, signatures=(msgspec.structs.replace(signature, sig=bytes(sig)),)
        ),
    )


def no_pem(good: Offer) -> Offer:
    return msgspec.structs.replace(good, certificate="-----BEGIN CERTIFICATE-----\nü\n")


def leaf_signs_leaf(good: Offer) -> Offer:
    """A device that signs another one with its own certificate: it may sign nothing."""
    device = identity_of(OTHER)
    issued = ca.Issued(device.chain_pem.encode(), b"")
    leaf = ca.certificate_of(issued)
    forged = ca.sign_device(ca.Ca(leaf, device.key), CAMERA, device.key.public_key(), now=NOW)
    pem = forged.public_bytes(Encoding.PEM).decode() + device.chain_pem
    made = Identity(CAMERA, pem, device.key, f"{forged.serial_number:032x}")
    return msgspec.structs.replace(good, manifest=made.signed(good.manifest.payload), certificate=pem)


@pytest.mark.parametrize("spoil", [other_key, other_keyid, other_authority, flipped, no_pem, leaf_signs_leaf])
def test_what_the_devices_key_has_not_signed_is_refused(spoil: Callable[[Offer], Offer]) -> None:
    assert code_of(spoil(file().offer)) is Code.IDENTITY


def test_a_device_of_an_authority_before_this_one_is_known_by_the_root() -> None:
    former = ca.new_intermediate(AUTHORITIES.root, "the one before", now=NOW)
    above = former.certificate_pem + AUTHORITIES.root.certificate_pem
    identity = Identity.of(ca.issue_device(former, CAMERA, now=NOW), CAMERA, above)
    assert offered(File(DATA, manifest_of(DATA), identity).offer, CAMERA, trust()).doubts == ()


def test_a_manifest_that_is_none_is_malformed() -> None:
    good = file().offer
    spoiled = identity_of(CAMERA).signed(good.manifest.payload + b" ")
    assert code_of(msgspec.structs.replace(good, manifest=spoiled)) is Code.MALFORMED


@pytest.mark.parametrize(
    ("revoked_ms", "doubts"),
    [
        (T0 - 1, (Doubt.REVOKED,)),
        (T0, (Doubt.REVOKED,)),
        (T0 + 1, ()),  # when it was made, the device was trusted
    ],
)
def test_a_certificate_revoked_before_the_file_was_made_is_a_doubt_and_no_refusal(
    revoked_ms: int, doubts: tuple[Doubt, ...]
) -> None:
    revoked = trust(**{f"s{identity_of(CAMERA).serial}": revoked_ms})
    assert offered(file().offer, CAMERA, revoked).doubts == doubts


@pytest.mark.parametrize(
    ("at_ms", "src", "doubts"),
    [
        (T0 + 800 * DAY_MS, "ntp", ()),
        (T0 + 880 * DAY_MS, "ntp", ()),  # expired, and within the grace
        (T0 + 900 * DAY_MS, "ntp", (Doubt.VALIDITY,)),
        (T0 - DAY_MS, "ntp", (Doubt.VALIDITY,)),
        (0, "none", ()),  # nobody had set the clock
    ],
)
def test_a_file_made_outside_the_certificates_time_is_doubted(
    at_ms: int, src: str, doubts: tuple[Doubt, ...]
) -> None:
    moment = Moment(at_ms, 40, src, "5c1d7a90be2f4436", 1)
    assert offered(file(begin=moment).offer, CAMERA, trust()).doubts == doubts


@pytest.mark.parametrize(
    ("room", "size", "code"),
    [
        (Room(1000, 500, 0, 7, 0), 100, None),
        (Room(1000, 500, 0, 8, 0), 100, Code.BUSY),
        (Room(1000, 500, 0, 0, 901), 100, Code.QUOTA),
        (Room(1000, 500, 0, 0, 900), 100, None),
        (Room(1000, 200, 0, 0, 0), 100, None),  # just 90 %
        (Room(1000, 200, 1, 0, 0), 100, Code.DISK),  # others were promised room
    ],
)
def test_room(room: Room, size: int, code: Code | None) -> None:
    bounds = Bounds(0.9, 1000)
    if code is None:
        check_room(size, room, bounds)
        return
    with pytest.raises(RefusedError) as refused:
        check_room(size, room, bounds)
    assert refused.value.code is code
    assert refused.value.again_s > 0

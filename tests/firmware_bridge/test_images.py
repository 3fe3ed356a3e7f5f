"""MCUboot images: what imgtool signs is taken, and what it refuses is refused."""

import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.adapters.signature_child import check_signature
from firmware_bridge.firmware.images import Demands, Fault, Image, RefusedError, admit, read_image
from tests.firmware_bridge.signing import DEVICE_CLASS, HARDWARE, VENDOR, Signer, imgtool

KINDS = ("ecdsa-p256", "ed25519", "rsa-2048")
BODY = bytes(range(256)) * 8


@pytest.fixture(scope="session")
def signers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signer]:
    directory = tmp_path_factory.mktemp("signers")
    return {kind: Signer(directory / kind, kind).make() for kind in KINDS}


@pytest.fixture(scope="session")
def signed(signers: dict[str, Signer]) -> bytes:
    return signers["ecdsa-p256"].sign(BODY)


def takes(data: bytes, signer: Signer) -> Image:
    image = read_image(data)
    admit(image, Demands(HARDWARE, 65_536, counter_floor=7))
    check_signature(image, [signer.public.read_text()])
    return image


def refuses(call: Callable[[], object]) -> tuple[Fault, str]:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value.fault, str(caught.value)


def imgtool_refuses(data: bytes, signer: Signer, directory: Path) -> str:
    file = directory / "refused.bin"
    file.write_bytes(data)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        imgtool("verify", "-k", str(signer.key), str(file))
    return f"{caught.value.stdout}{caught.value.stderr}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_imgtool_signs_is_taken_and_says_what_it_is(signers: dict[str, Signer], kind: str) -> None:
    signer = signers[kind]
    data = signer.sign(BODY, version="1.2.3+4", counter=7)
    image = takes(data, signer)
    assert (image.version, image.counter) == ("1.2.3.4", 7)
    assert image.file_sha256 == hashlib.sha256(data).digest()
    said = imgtool("dumpinfo", str(signer.directory / "image.bin")).stdout
    digest = "".join(said.partition("data: ")[2].split())  # the TLVs follow the header there, the hash is one of them
    assert all(f"{byte:#x}" in digest for byte in image.tlv_hash)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_not_pinned_signs_nothing(signers: dict[str, Signer], kind: str, tmp_path: Path) -> None:
    stranger = Signer(tmp_path / "stranger", kind).make()
    data = stranger.sign(BODY)
    fault, why = refuses(lambda: takes(data, signers[kind]))
    assert fault is Fault.WRONGLY_SIGNED
    assert "expected a signature of one of 1 pinned keys" in why
    assert "signature" in imgtool_refuses(data, signers[kind], tmp_path)


def test_any_of_several_pinned_keys_is_enough_and_what_is_no_key_is_none(signers: dict[str, Signer]) -> None:
    image = read_image(signers["ed25519"].sign(BODY))
    keys = ["no key", signers["rsa-2048"].public.read_text(), signers["ed25519"].public.read_text()]
    assert check_signature(image, keys) == 2
    fault, why = refuses(lambda: check_signature(image, keys[:2]))
    assert fault is Fault.WRONGLY_SIGNED
    assert "1 are not public keys" in why


def test_an_image_without_a_signature_is_refused(signed: bytes, signers: dict[str, Signer], tmp_path: Path) -> None:
    source, target = tmp_path / "raw", tmp_path / "bin"
    source.write_bytes(BODY)
    imgtool("sign", "--version", "1.0.0", "--header-size", "0x200", "--pad-header", "--slot-size", "0x1a000",
            "--align", "4", str(source), str(target))  # fmt: skip
    fault, why = refuses(lambda: check_signature(read_image(target.read_bytes()), ["key"]))
    assert (fault, why) == (
        Fault.WRONGLY_SIGNED,
        "expected a signature of a pinned key, got an image without one",
    )


@given(data=st.data())
def test_one_bit_that_flipped_is_seen_wherever_it_is(signed: bytes, data: st.DataObject) -> None:
    end = signed.index(read_image(signed).tlv_hash) + 32  # behind it are only signatures
    bit = data.draw(st.integers(0, end * 8 - 1))
    flipped = bytearray(signed)
    flipped[bit // 8] ^= 1 << bit % 8
    assert refuses(lambda: read_image(bytes(flipped)))[0] is Fault.CORRUPTED


@pytest.mark.parametrize("length", [0, 1, 31, 32, 511, 512, 1000])
def test_what_is_cut_off_is_refused(signed: bytes, length: int) -> None:
    assert refuses(lambda: read_image(signed[:length]))[0] is Fault.CORRUPTED


def test_at_every_truncation_in_its_tlvs_it_is_refused(signed: bytes) -> None:
    for length in range(512 + len(BODY), len(signed)):
        assert refuses(lambda: read_image(signed[:length]))[0] is Fault.CORRUPTED  # noqa: B023  # called at once


@given(data=st.binary(max_size=600))
def test_no_bytes_whatever_are_taken_for_an_image(data: bytes) -> None:
    for each in (data, struct.pack("<I", 0x96F3B83D) + data):
        assert refuses(lambda: read_image(each))[0] is Fault.CORRUPTED  # noqa: B023  # called at once


def test_a_body_that_is_not_what_was_hashed_is_refused_as_imgtool_does(
    signed: bytes, signers: dict[str, Signer], tmp_path: Path
) -> None:
    bad = bytearray(signed)
    bad[0x300] ^= 0xFF
    fault, why = refuses(lambda: read_image(bytes(bad)))
    assert fault is Fault.CORRUPTED
    assert "hash" in why
    assert "invalid hash" in imgtool_refuses(bytes(bad), signers["ecdsa-p256"], tmp_path)


@pytest.mark.parametrize(
    "hardware", [None, (VENDOR, "another-dock"), ("another.example", DEVICE_CLASS)], ids=["none", "class", "vendor"]
)
def test_an_image_for_other_hardware_is_foreign(signers: dict[str, Signer], hardware: tuple[str, str] | None) -> None:
    data = signers["ed25519"].sign(BODY, hardware=hardware)
    assert refuses(lambda: takes(data, signers["ed25519"]))[0] is Fault.FOREIGN


def test_an_image_that_names_hardware_is_foreign_where_none_is_demanded(signed: bytes) -> None:
    assert refuses(lambda: admit(read_image(signed), Demands()))[0] is Fault.FOREIGN


@pytest.mark.parametrize(("counter", "taken"), [(None, False), (6, False), (7, True), (8, True)])
def test_the_security_counter_never_goes_down(signers: dict[str, Signer], counter: int | None, taken: bool) -> None:
    data = signers["ed25519"].sign(BODY, counter=counter)
    if taken:
        takes(data, signers["ed25519"])
    else:
        assert refuses(lambda: takes(data, signers["ed25519"]))[0] is Fault.DOWNGRADE


def test_a_slot_holds_the_image_and_what_the_boot_loader_keeps_beside_it(signed: bytes) -> None:
    image = read_image(signed)
    admit(image, Demands(HARDWARE, len(signed) + 100, 100))
    fault, why = refuses(lambda: admit(image, Demands(HARDWARE, len(signed) + 100, 101)))
    assert (fault, why) == (Fault.TOO_BIG, f"expected at most {len(signed) - 1} bytes, got {len(signed)}")


def test_an_image_that_marks_itself_for_the_boot_loader_is_refused(signers: dict[str, Signer]) -> None:
    data = signers["ed25519"].sign(BODY, more=("--pad", "--confirm"))
    fault, why = refuses(lambda: read_image(data))
    assert fault is Fault.CORRUPTED
    assert "nothing after its TLVs" in why


def test_who_checks_an_image_does_not_load_the_library_that_checks() -> None:
    code = (
        "import sys, firmware_bridge.firmware.updater, firmware_bridge.adapters.signature_child,"
        "firmware_bridge.adapters.firmware_journal;"
        "print({'cryptography', 'smpclient', 'pydantic', 'bleak'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""Notes, checkpoints and cosignatures are those of C2SP, byte for byte.

Vectors: the example of the signed-note specification; and one made by golang.org/x/mod/sumdb/note and
github.com/transparency-dev/formats, others' works, whose signatures are deterministic and so must be ours.
"""

import base64

import pytest

from fleet_server.access import notes
from fleet_server.access.notes import COSIGNATURE, Checkpoint, NoteError, Signer, Verifier

SPECIFIED_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPECIFIED = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
LOG = Signer("fieldfleet.example/audit", bytes(range(32)))
WITNESS = Signer("witness.example/w1", bytes(range(255, 223, -1)), COSIGNATURE)
LOG_SIGNER = "PRIVATE+KEY+fieldfleet.example/audit+78ae6238+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
LOG_VERIFIER = "fieldfleet.example/audit+78ae6238+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
CHECKPOINT = Checkpoint(
    "fieldfleet.example/audit/1", 21, base64.b64decode("Svea78FcRz5nsuDIk+L3vD1cxCHH7bm4Q7d2/bhAboM=")
)
SIGNED = CHECKPOINT.text() + (
    "\n— fieldfleet.example/audit "
    "eK5iOPeFHxSekbYC7QW3KEDXfAHrK6KB9GB1RZ7HD1dtp7od5iOCMZIuTCc8r7bRE4nQ0gjrN7Q4DgG3zS6KTHCYngs=\n"
)
AT_S = 1795658579
COSIGNED = SIGNED + (
    "— witness.example/w1 "
    "ycts0QAAAABrB5NT/UHeLYp0KKMlLtE5GGA2EZqxJpXqegOBGW9MvV1jyWCtKWnnDa51XEFga4ipSwheW4ymiPPqv4ElvYaIO0mIDQ==\n"
)


def test_the_specification_s_example() -> None:
    verifier = Verifier.parse(SPECIFIED_KEY)
    assert verifier.text() == SPECIFIED_KEY
    assert notes.opened(SPECIFIED, verifier) == ()


def test_a_checkpoint_is_signed_as_others_sign_it() -> None:
    assert LOG.verifier.text() == LOG_VERIFIER
    assert LOG.text() == f"{LOG_SIGNER}\n"
    assert LOG.sign(CHECKPOINT.text()) == SIGNED
    assert notes.checkpoint_of(SIGNED) == CHECKPOINT
    assert notes.opened(SIGNED, Verifier.parse(LOG_VERIFIER)) == ()


def test_a_witness_signs_as_others_do() -> None:
    assert notes.opened(COSIGNED, WITNESS.verifier) == (AT_S,)
    assert WITNESS.cosign(SIGNED, at_s=AT_S) == COSIGNED
    assert notes.opened(COSIGNED, LOG.verifier) == ()
    assert notes.checkpoint_of(COSIGNED) == CHECKPOINT


@pytest.mark.parametrize("signer", [LOG, WITNESS])
def test_keys_are_read_as_written_and_never_shown(signer: Signer) -> None:
    assert Signer.parse(signer.text()) == signer
    assert Verifier.parse(signer.verifier.text()) == signer.verifier
    assert base64.b64encode(signer.seed).decode() not in repr(signer)
    assert str(signer.seed) not in repr(signer)


@pytest.mark.parametrize("at", range(len(SIGNED)))
def test_a_note_that_is_cut_or_changed_anywhere_is_refused(at: int) -> None:
    for wrong in (SIGNED[:at], f"{SIGNED[:at]}\x7e{SIGNED[at + 1 :]}"):
        with pytest.raises(NoteError):
            notes.opened(wrong, LOG.verifier)


def test_a_time_that_was_changed_is_refused() -> None:
    log_line, witness_line = COSIGNED.splitlines(keepends=True)[-2:]
    raw = bytearray(base64.b64decode(witness_line.split()[-1]))
    raw[11] ^= 1
    wrong = COSIGNED.replace(witness_line, f"— {WITNESS.name} {base64.b64encode(raw).decode()}\n")
    with pytest.raises(NoteError, match="not of this text"):
        notes.opened(wrong, WITNESS.verifier)
    assert notes.opened(wrong, LOG.verifier) == (), log_line


def test_a_note_without_the_key_s_signature_is_refused() -> None:
    with pytest.raises(NoteError, match="not signed by"):
        notes.opened(SIGNED, WITNESS.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n1\n",
        "origin\n01\n{root}\n",
        "origin\n-1\n{root}\n",
        "origin\n9223372036854775808\n{root}\n",
        "origin\n1\nAAAA\n",
        "origin\n1\nno base64\n",
        "\n1\n{root}\n",
        "origin\n1\n{root}\n\nextension\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    root = base64.b64encode(bytes(32)).decode()
    with pytest.raises(NoteError):
        notes.checkpoint_of(LOG.sign(text.format(root=root)))


@pytest.mark.parametrize(
    "text",
    ["", "name", "name+00000000", SPECIFIED_KEY.replace("530d903a", "530d903b"), "n+00000000+AQ==", "a b+1+AQ=="],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(text)
    with pytest.raises(NoteError):
        Signer.parse(f"PRIVATE+KEY+{text}")

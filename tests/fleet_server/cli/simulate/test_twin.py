"""The twin of a simulated device: what it says on a connection, at an order, and until the server knows it."""

import msgspec
import pytest

from broker_config import signing, twin
from broker_config.ids import ContractError, DeviceId, SiteId
from broker_config.signing import PAYLOAD_TYPE, Claims, Envelope, Kind, Signature
from broker_config.twin import AskTwin, ChangeState, Desired, Reported, TwinState
from fleet_server.cli.simulate.twin import SAY_AGAIN_S, Confirmed, Twin

BOOT = "00000000000000aa"
MS = 1_795_000_000_000


def ordered(version: int, config: dict[str, object]) -> bytes:
    """An order as the server says it, with a signature that nobody here looks at."""
    body = twin.body(msgspec.convert({"t": "desired", "v": 1, "version": version, "config": config}, Desired))
    claims = Claims(1, Kind.TWIN, SiteId("0" * 64), DeviceId("cam-1"), version, MS, MS + 60_000, body)
    return signing.encode(Envelope(signing.encode(claims), PAYLOAD_TYPE, (Signature("k", b"s"),)))


def said(bodies: list[bytes]) -> list[twin.Said]:
    return [twin.decode_said(body) for body in bodies]


def known(device: Twin, desired: int = 0) -> bytes:
    return twin.encode(TwinState(1, desired, device.version))


def test_on_a_connection_it_reports_and_asks() -> None:
    reported, asked = said(Twin(BOOT).up(0.0, MS))
    assert reported == Reported(1, MS, BOOT, 0, 0, ChangeState.CURRENT, {})
    assert asked == AskTwin(1, 0)


def test_what_is_desired_is_reported_and_confirmed_when_the_server_knows_it() -> None:
    device = Twin(BOOT)
    device.up(0.0, MS)
    device.told(known(device), 0.1, MS)
    (reported,) = said(device.told(ordered(MS + 5, {"keep_alive_s": 30}), 1.0, MS + 10))
    assert reported == Reported(1, MS + 10, BOOT, MS + 5, MS + 5, ChangeState.CURRENT, {"keep_alive_s": 30})
    assert device.told(known(device, MS + 5), 1.5, MS) == []
    assert device.confirmed == [Confirmed(0, 0.1), Confirmed(MS + 5, 1.5)]
    assert device.next_s is None


def test_what_the_server_does_not_know_is_said_again_ever_later() -> None:
    device = Twin(BOOT)
    first = device.up(0.0, MS)[0]
    assert device.turn(SAY_AGAIN_S - 0.1, MS) == []
    assert device.turn(SAY_AGAIN_S, MS) == [first]
    assert device.next_s == 3 * SAY_AGAIN_S


def test_a_hint_makes_it_ask_once() -> None:
    device = Twin(BOOT)
    device.up(0.0, MS)
    hint = twin.encode(TwinState(1, MS + 1, 0))
    assert said(device.told(hint, 0.1, MS)) == [AskTwin(1, 0)]
    assert device.told(hint, 0.2, MS) == []


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"t":"desired"}'])
def test_what_is_no_word_of_the_contract_is_refused(body: bytes) -> None:
    with pytest.raises(ContractError):
        Twin(BOOT).told(body, 0.0, MS)


def test_an_order_that_is_not_newer_is_refused() -> None:
    device = Twin(BOOT)
    device.told(ordered(MS, {}), 0.0, MS)
    with pytest.raises(ContractError, match="expected a version above"):
        device.told(ordered(MS, {}), 0.1, MS)

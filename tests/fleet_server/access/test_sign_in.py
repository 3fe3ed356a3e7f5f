"""A sign-in is resumed by the browser that began it, once, in time; and claims make an identity, or none."""

import base64
import hashlib

import pytest

from fleet_server.access.people import NodeGrant
from fleet_server.access.persons import EMAIL_CHARS_MAX, NOBODY, SLUG_CHARS_MAX, Identity, slug_of
from fleet_server.access.roles import Role
from fleet_server.access.sign_in import (
    SIGN_IN_MS,
    USED_MAX,
    Policy,
    RefusedSignInError,
    TooManySignInsError,
    UsedStates,
    begin,
    grants_by_group,
    identity_of,
    resumed,
)
from fleet_server.registry.model import NAME_CHARS_MAX

KEY, SECRET = b"k" * 32, b"s" * 32
POLICY = Policy(issuer="https://login.example", client_id="fieldfleet")
BEGUN = begin(KEY, SECRET, now_ms=1_000)


def test_what_is_resumed_is_what_was_begun() -> None:
    assert resumed(KEY, BEGUN.cookie, BEGUN.state, now_ms=1_000 + SIGN_IN_MS - 1) == BEGUN


def test_no_part_tells_another() -> None:
    parts = (BEGUN.state, BEGUN.nonce, BEGUN.verifier)
    assert len({*parts, base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()}) == 4
    assert all(43 <= len(part) <= 128 for part in parts)  # RFC 7636 section 4.1
    other = begin(KEY, b"t" * 32, now_ms=1_000)
    assert not {*parts} & {other.state, other.nonce, other.verifier}


@pytest.mark.parametrize(
    ("cookie", "state"),
    [
        (None, BEGUN.state),
        ("", BEGUN.state),
        (BEGUN.cookie, None),
        (BEGUN.cookie, ""),
        (BEGUN.cookie, BEGUN.nonce),
        (BEGUN.cookie, "é"),
        (BEGUN.cookie[1:], BEGUN.state),
        (BEGUN.cookie[:-1], BEGUN.state),
        (BEGUN.cookie.replace(".601000.", ".9601000."), BEGUN.state),  # for longer than we said
        (BEGUN.cookie.replace(".601000.", ".soon."), BEGUN.state),
        (begin(b"x" * 32, SECRET, now_ms=1_000).cookie, BEGUN.state),
        ("..", BEGUN.state),
        ("é.1.é", BEGUN.state),
        ("a", BEGUN.state),
    ],
)
def test_what_was_not_begun_here_by_this_browser_is_refused(cookie: str | None, state: str | None) -> None:
    with pytest.raises(RefusedSignInError):
        resumed(KEY, cookie, state, now_ms=1_000)


def test_a_sign_in_is_over_after_its_time() -> None:
    with pytest.raises(RefusedSignInError, match="10 minutes"):
        resumed(KEY, BEGUN.cookie, BEGUN.state, now_ms=1_000 + SIGN_IN_MS)


def test_what_came_back_is_remembered_as_long_as_it_could_come_again() -> None:
    used = UsedStates()
    used.use(BEGUN, now_ms=1_000)
    with pytest.raises(RefusedSignInError, match="used already"):
        used.use(BEGUN, now_ms=1_000)
    for n in range(USED_MAX - 1):
        used.use(begin(KEY, hashlib.sha256(b"%d" % n).digest(), now_ms=2_000), now_ms=2_000)
    late = begin(KEY, b"l" * 32, now_ms=2_000)
    with pytest.raises(TooManySignInsError):
        used.use(late, now_ms=2_000)
    used.use(late, now_ms=1_000 + SIGN_IN_MS)  # the first has made room


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"sub": "1"}, Identity("https://login.example", "1", "", "")),
        (
            {"sub": "1", "name": " A\x1b[2J\nB ", "email": "a@b"},
            Identity("https://login.example", "1", "A[2JB", "a@b"),
        ),
        ({"sub": "1", "name": 7, "email": ["a"]}, Identity("https://login.example", "1", "", "")),
        (
            {"sub": "1", "name": "n" * 999, "email": "e" * 999},
            Identity("https://login.example", "1", "n" * NAME_CHARS_MAX, "e" * EMAIL_CHARS_MAX),
        ),
    ],
)
def test_who_claims_are_of(claims: dict[str, object], identity: Identity) -> None:
    assert identity_of(claims, POLICY) == identity


def test_groups_give_what_the_configuration_says_each_once() -> None:
    viewer, manager = NodeGrant(Role.VIEWER, None), NodeGrant(Role.EQUIPMENT_MANAGER, "s")
    policy = Policy("https://login.example", "x", groups=(("a", viewer), ("b", viewer), ("c", manager)))
    for groups, given in (
        (["a", "b", 7], [viewer]),
        ("c", [manager]),  # a provider may say one as it is
        (["A", "d"], []),
        ({"a": 1}, []),
        (None, []),
    ):
        assert grants_by_group({"groups": groups}, policy) == given


@pytest.mark.parametrize(
    ("name", "email", "taken", "slug"),
    [
        ("Anna Meyer", "a.meyer@police.example", (), "a-meyer"),
        ("Zoë Ångström", "", (), "zoe-angstrom"),
        ("王小明", "", (), NOBODY),
        ("王小明", "", (NOBODY, f"{NOBODY}-2"), f"{NOBODY}-3"),
        ("x", "--_--@a", (), "x"),
        ("", "a" * 99 + "@b", (), "a" * SLUG_CHARS_MAX),
        ("", "first-administrator@b", (), "first-administrator"),  # as a holder it is person:first-administrator
    ],
)
def test_an_id_is_made_of_what_somebody_is_called(name: str, email: str, taken: tuple[str, ...], slug: str) -> None:
    assert slug_of(Identity("i", "s", name, email), taken) == slug

"""What the URI of a key may say, and that a PIN in it is neither taken nor shown."""

from pathlib import Path

import pytest

from fleet_server.access.key_uri import EXAMPLE, KEY_URI_CHARS_MAX, KeyUri, KeyUriError

QUERY = "?module-path=/m.so&pin-source=file:/pin"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"pkcs11:token=a;object=b{QUERY}", KeyUri("a", "b", b"", Path("/m.so"), Path("/pin"))),
        (f"pkcs11:id=%01%fe;token=a%20b%C3%A4{QUERY}", KeyUri("a bä", "", b"\1\xfe", Path("/m.so"), Path("/pin"))),
        (f"pkcs11:token=a;object=b;type=private{QUERY}", KeyUri("a", "b", b"", Path("/m.so"), Path("/pin"))),
        (
            "pkcs11:token=a;object=b?pin-source=file:///pin&module-path=/m.so",
            KeyUri("a", "b", b"", Path("/m.so"), Path("/pin")),
        ),
    ],
)
def test_a_uri_is_read_in_any_order(text: str, read: KeyUri) -> None:
    assert KeyUri.parse(text) == read


def test_the_example_that_messages_show_is_one() -> None:
    assert KeyUri.parse(EXAMPLE).label == "device-ca"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file:/key", "expected a URI"),
        ("pkcs11:" + "a" * KEY_URI_CHARS_MAX, "expected a URI"),
        ("pkcs11:", "token, module-path, pin-source, object or id: missing"),
        (f"pkcs11:token=a{QUERY}", "object or id: missing"),
        (f"pkcs11:token=;object=b{QUERY}", "token: missing"),
        ("pkcs11:token=a;object=b?module-path=/m.so", "pin-source: missing"),
        (f"pkcs11:token=a;object=b;serial=7{QUERY}", "serial: unknown"),
        (f"pkcs11:token=a;object=b{QUERY}&module-name=x", "module-name: unknown"),
        (f"pkcs11:token=a;token=c;object=b{QUERY}", "token: expected once"),
        (f"pkcs11:token=a;object=b;type=public{QUERY}", "type: expected private"),
        (f"pkcs11:token=%ff;object=b{QUERY}", "token: expected UTF-8"),
        (f"pkcs11:token=%f;object=b{QUERY}", "token: expected a value in printable ASCII"),
        (f"pkcs11:token=ä;object=b{QUERY}", "token: expected a value in printable ASCII"),
        (f"pkcs11:token;object=b{QUERY}", "token: expected a value"),
        ("pkcs11:token=a;object=b?module-path=m.so&pin-source=file:/pin", "module-path: expected /ABSOLUTE"),
        ("pkcs11:token=a;object=b?module-path=/m.so&pin-source=file:pin", "pin-source: expected file:/ABSOLUTE"),
        ("pkcs11:token=a;object=b?module-path=/m.so&pin-source=/pin", "pin-source: expected file:/ABSOLUTE"),
        ("pkcs11:token=a;object=b?module-path=/m.so&pin-source=https://a/pin", "pin-source: expected file:/ABSOLUTE"),
        ("pkcs11:token=a;object=b?module-path=/m.so%00&pin-source=file:/pin", "module-path: expected /ABSOLUTE"),
    ],
)
def test_what_says_something_else_is_refused_with_its_name(text: str, fault: str) -> None:
    with pytest.raises(KeyUriError, match=fault):
        KeyUri.parse(text)


@pytest.mark.parametrize("text", ["pkcs11:token=a;object=b?pin-value=4711", "pkcs11:pin-value=4711"])
def test_a_pin_in_it_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(KeyUriError, match="pin-source") as refused:
        KeyUri.parse(text)
    assert "4711" not in str(refused.value)

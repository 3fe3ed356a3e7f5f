"""Runs on the device: samples, keeps, sends, and lets go of a record only against a receipt."""

import sys

from firmware_bridge.left_out import left_out

# A quarter of a megabyte each: inspect, for dataclasses, wants ast to read source; urllib.parse, for pathlib, wants
# ipaddress for addresses in brackets; asyncio has a TLS of its own, and paho speaks TLS without it.
with left_out("ast", "ipaddress", "asyncio.sslproto"):
    import asyncio  # noqa: F401
    import inspect  # noqa: F401
    import urllib.parse  # noqa: F401

# msgspec takes typing_extensions where it finds them, nearly a megabyte, for what Python 3.11 has itself. Whoever
# imports them later gets the real ones. Its own inspection of types is for who writes schemas, and nothing here is a
# decimal number. With it comes uuid, which wants platform, an eighth, to make numbers of network addresses.
_EXTENSIONS = "typing_extensions"
if _EXTENSIONS not in sys.modules:
    sys.modules[_EXTENSIONS] = None  # type: ignore[assignment]  # what the import system takes for "not there"
    try:
        with left_out("msgspec.inspect", "msgspec._json_schema", "decimal", "platform"):
            import msgspec  # noqa: F401
    finally:
        del sys.modules[_EXTENSIONS]

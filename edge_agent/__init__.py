"""Runs on the device: samples, keeps, sends, and lets go of a record only against a receipt."""

import sys

# msgspec takes typing_extensions where it finds them, nearly a megabyte, for what Python 3.11 has itself. Whoever
# imports them later gets the real ones.
_EXTENSIONS = "typing_extensions"
if _EXTENSIONS not in sys.modules:
    sys.modules[_EXTENSIONS] = None  # type: ignore[assignment]  # what the import system takes for "not there"
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[_EXTENSIONS]

"""A real token in a directory: Debian's SoftHSM, for one test's process and the programs that it starts."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pkcs11
import pytest

from fleet_server.adapters import pkcs11_token
from tests.servers import program

UTIL: Final = "softhsm2-util"
MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN: Final = "4711-site"
LABEL: Final = "site"


@dataclass
class Tokens:
    """A directory with tokens, and the file of their PIN."""

    directory: Path
    pin_file: Path

    def uri(self, key: str, *, token: str = LABEL, module: Path = MODULE, pin_file: Path | None = None) -> str:
        """*key*: ``object=...`` and the like."""
        return f"pkcs11:token={token};{key}?module-path={module}&pin-source=file:{pin_file or self.pin_file}"

    def add(self, label: str) -> None:
        """One more token, which a process sees that begins with the library anew."""
        words = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-pin"]
        subprocess.run([str(program(UTIL)), *words], check=True, capture_output=True)
        begin_anew()

    def session(self) -> pkcs11.Session:
        """To look, and to do what the product does not."""
        begin_anew()
        return pkcs11.lib(str(MODULE)).get_token(token_label=LABEL).open(rw=True, user_pin=PIN)

    def kill_sessions(self) -> None:
        """As a token does that was pulled out: who has one finds it dead."""
        token = pkcs11.lib(str(MODULE)).get_token(token_label=LABEL)
        assert ctypes.CDLL(str(MODULE)).C_CloseAllSessions(ctypes.c_ulong(token.slot.slot_id)) == 0


def begin_anew() -> None:
    """Forget what other tests of this process had; the library reads its configuration again."""
    pkcs11_token._sessions.clear()
    pkcs11_token._refused.clear()
    pkcs11.lib(str(MODULE)).reinitialize()


@contextmanager
def softhsm(directory: Path) -> Iterator[Tokens]:
    """With one token in it."""
    (directory / "tokens").mkdir(parents=True)
    config = directory / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin_file = directory / "pin"
    pin_file.write_text(f"{PIN}\n")
    pin_file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SOFTHSM2_CONF", str(config))
        made = Tokens(directory, pin_file)
        made.add(LABEL)
        yield made

"""Images as MCUboot's own imgtool signs them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

HEADER_BYTES: Final = 0x200
SLOT_BYTES: Final = 0x1A000
VENDOR, DEVICE_CLASS = "fieldfleet.example", "dock"
HARDWARE: Final = f"{VENDOR}/{DEVICE_CLASS}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key of imgtool's in *directory*."""

    directory: Path
    kind: str = "ecdsa-p256"

    @property
    def key(self) -> Path:
        return self.directory / f"{self.kind}.pem"

    @property
    def public(self) -> Path:
        return self.directory / f"{self.kind}.pub.pem"

    def make(self) -> Self:
        """Make the key. Raises CalledProcessError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        imgtool("keygen", "-k", str(self.key), "-t", self.kind)
        imgtool("getpub", "-k", str(self.key), "-e", "pem", "-o", str(self.public))
        return self

    def sign(
        self,
        program: bytes,
        *,
        name: str = "image",
        version: str = "1.2.3+4",
        counter: int | None = 7,
        hardware: tuple[str, str] | None = (VENDOR, DEVICE_CLASS),
        more: tuple[str, ...] = (),
    ) -> bytes:
        """A signed image, as imgtool makes it."""
        source, target = self.directory / f"{name}.raw", self.directory / f"{name}.bin"
        source.write_bytes(program)
        options = ["-k", str(self.key), "--version", version, "--header-size", hex(HEADER_BYTES), "--pad-header"]
        options += ["--slot-size", hex(SLOT_BYTES), "--align", "4"]
        options += [] if counter is None else ["--security-counter", str(counter)]
        options += [] if hardware is None else ["--vid", hardware[0], "--cid", hardware[1]]
        imgtool("sign", *options, *more, str(source), str(target))
        return target.read_bytes()


def imgtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """MCUboot's own tool. Raises CalledProcessError."""
    command = [sys.executable, "-c", "from imgtool.main import imgtool; imgtool()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)

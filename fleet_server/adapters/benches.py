"""The certificates of benches' devices, which ``add-device`` makes beside the server: one file of PEM a device.

The server reads the file when the device is to be put out. What is in it counts only if the authority has signed it.
"""

from pathlib import Path
from typing import Final

from broker_config.ids import DeviceId
from fleet_server.adapters.files import PRIVATE_DIRECTORY, write_durably

FILE_BYTES_MAX: Final = 64 * 1024
PUBLIC: Final = 0o644
END: Final = "-----END CERTIFICATE-----\n"


def certificates(directory: Path, device: DeviceId) -> list[str]:
    """All that were made for *device*, each as PEM; none if there is no file. Raises OSError."""
    try:
        with _file(directory, device).open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        return []
    return [part + END for part in text.split(END) if part.strip()]


def add(directory: Path, device: DeviceId, certificate_pem: bytes) -> Path:
    """One more of *device*'s; durable once it returns. Raises OSError: nothing has changed, or the file is full."""
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    path = _file(directory, device)
    content = (path.read_bytes() if path.exists() else b"") + certificate_pem
    if len(content) > FILE_BYTES_MAX:
        raise OSError(f"{path}: has more than {FILE_BYTES_MAX} bytes of certificates; revoke {device}, and remove it")
    write_durably(path, content, mode=PUBLIC)
    return path


def _file(directory: Path, device: DeviceId) -> Path:
    return directory / f"{device}.crt"

import pytest

from firmware_bridge import port_names, usb_names
from firmware_bridge.port_names import NoPortError
from firmware_bridge.usb_names import UsbPort

FTDI = UsbPort("/dev/ttyUSB0", 0x0403, 0x6001, "A50285BI", 0, "FT232R USB UART")
QUAD = [UsbPort(f"/dev/ttyUSB{at + 1}", 0x0403, 0x6011, "FT4XYZ", at, "Quad") for at in range(4)]
GNSS = UsbPort("/dev/ttyACM0", 0x1546, 0x01A8, "", 0, "u-blox GNSS")
PLUGGED = [FTDI, *QUAD, GNSS]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("usb:A50285BI", [FTDI]),
        ("usb:0403:6001", [FTDI]),
        ("usb:0403:6001:A50285BI", [FTDI]),
        ("usb:1546:01A8", [GNSS]),
        ("usb:FT4XYZ", QUAD),
        ("usb:FT4XYZ/if02", [QUAD[2]]),
        ("usb:0403:6011/if00", [QUAD[0]]),
        ("usb:0403:6001:FT4XYZ", []),  # the maker's other product
        ("usb:a50285bi", []),  # serial numbers are what they are
        ("usb:A50285", []),
    ],
)
def test_a_usb_name_fits_what_the_device_tells_and_nothing_else(text: str, found: list[UsbPort]) -> None:
    name = usb_names.parse(text)
    assert [port for port in PLUGGED if name.fits(port)] == found


@pytest.mark.parametrize("port", PLUGGED, ids=lambda port: port.path)
def test_the_name_that_a_scan_tells_finds_the_port_again(port: UsbPort) -> None:
    name = usb_names.parse(port.name)
    assert port in [each for each in PLUGGED if name.fits(each)]


@pytest.mark.parametrize(
    ("text", "wild"),
    [
        ("/dev/serial/by-id/usb-FTDI_RS485-if00", False),
        ("/dev/serial/by-id/usb-u-blox_*-if00", True),
        ("/dev/ttyS0", False),  # a UART of the board stays where it is
        ("/dev/ttyUSBpump", False),  # somebody's own rule
    ],
)
def test_a_path_that_stays_is_a_name(text: str, wild: bool) -> None:
    port_names.check(text)
    assert port_names.is_path(text) is not wild


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ttyS0",
        "/dev/ttyUSB0",
        "/dev/ttyACM3",
        "/dev/ttyUSB*",  # whoever comes first is nobody in particular
        "usb:",
        "usb:403:6001",
        "usb:0403:6001:",
        "usb:A/if2",
        "usb:A b",
        "usb:A\n",
        "by-id:x",
    ],
)
def test_a_name_that_may_be_another_devices_tomorrow_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="port: expected"):
        port_names.check(text)


def test_nobody_guesses_which_of_several_is_meant() -> None:
    assert port_names.only(["/dev/a"], "usb:X") == "/dev/a"
    with pytest.raises(NoPortError, match="nothing is plugged in that is usb:X"):
        port_names.only([], "usb:X")
    with pytest.raises(NoPortError, match="expected one port that is usb:X, found 2: /dev/a, /dev/b"):
        port_names.only(["/dev/b", "/dev/a"], "usb:X")

"""Every bound that both sides rely on, with its unit in its name."""

from typing import Final

KIB: Final = 1024

PACKET_BYTES_MAX: Final = 256 * KIB
"""One MQTT packet, whole; the broker closes the connection of who sends more."""
BATCH_BYTES_MAX: Final = 192 * KIB
"""A batch's payload on the wire; leaves room for topic and properties in a packet."""
BATCH_BYTES_INFLATED_MAX: Final = 1024 * KIB
"""A compressed batch once inflated."""
BATCH_COMPRESS_BYTES_MIN: Final = 1 * KIB
"""Bodies shorter than this are sent as they are."""
BATCH_ROWS_MAX: Final = 1_000
BATCH_SPAN_MS_MAX: Final = 600_000
FIELDS_MAX: Final = 64
EVENTS_MAX: Final = 200
EVENT_DATA_MAX: Final = 32
TEXT_CHARS_MAX: Final = 512
"""A text inside an event."""
RESULT_MAX: Final = 16
"""Values in what a command found; with its id and name they fit into an event."""
VALUE_ABS_MAX: Final = 1e15
"""A reading's magnitude; whole numbers up to here are exact in a double."""
SEQ_MAX: Final = 2**53 - 1
TIME_MS_MAX: Final = 2**53 - 1
STREAMS_MAX: Final = 32
"""(stream, life) pairs that one device's birth may name."""
RANGES_MAX: Final = 64
"""Ranges in one list of a receipt or a birth."""

KEEP_ALIVE_S: Final = 30
KEEP_ALIVE_S_MAX: Final = 120
SESSION_EXPIRY_S: Final = 60
WILL_DELAY_S: Final = 30
SERVER_SESSION_EXPIRY_S: Final = 300

UNRECEIPTED_BATCHES_MAX: Final = 64
"""Batches of one device in flight without a receipt."""
RECEIPT_WAIT_S: Final = 15.0
"""After this long without a receipt a batch is sent again."""
SEAL_S: Final = 5.0
"""The named loss: what is not yet sealed when the power goes."""
RTT_MS_MAX: Final = 10_000
"""An answer to `up/time` that took longer moves no clock."""

CLOCK_MS_MIN: Final = 1_577_836_800_000
"""2020-01-01: a clock that claims to be set and says less is absurd."""
CLOCK_AHEAD_MS_MAX: Final = 86_400_000
"""A clock that claims to be set and is further ahead of the server's than this is absurd."""

RECONNECTS_A_SECOND_MAX: Final = 300
"""Connections in one second, unless a site says otherwise; two cores do that much TLS beside their other work."""
RECONNECT_SPREAD_MS_MAX: Final = 120_000
"""The longest that a server may ask its devices to spread over; the most that a false word of it costs a device."""

DEVICE_QUEUE_MESSAGES_MAX: Final = 1_000
"""Messages the broker may hold for one client; what it drops beyond that is sent again."""
SERVER_INFLIGHT_MESSAGES_MAX: Final = 8_000
"""Must exceed the server's commit group, or the group never fills."""
QUEUED_MESSAGES_MAX: Final = 100_000
"""Mosquitto has one figure for all clients: room for the server while it restarts under 1,500 full windows."""
QUEUED_BYTES_MAX: Final = 64 * 1024 * KIB
"""What the broker's memory holds for one client, however small or large its messages are."""
CONNECTIONS_MAX: Final = 20_000
SERVER_CONNECTIONS_MAX: Final = 64

CHUNK_BYTES_MIN: Final = 16 * KIB
CHUNK_BYTES_MAX: Final = 128 * KIB
"""Powers of two between them; a chunk with its header leaves room in a packet."""
UPLOAD_BYTES_MAX: Final = 4 * KIB**3
"""One file; a recording is many."""
OPEN_UPLOADS_MAX: Final = 8
"""Of one device at once; the next one waits until one of them is receipted."""
SEGMENTS_MAX: Final = 100_000
RECEIPTED_MAX: Final = 64
"""Uploads in one evidence receipt."""
UPLOAD_WINDOW_S: Final = 0.25
"""What may be under way, as time of the measured goodput: what else the device says waits so long at most."""
UPLOAD_WINDOW_BYTES_MAX: Final = 32 * KIB * KIB
UPLOAD_WAIT_S: Final = 2.0
"""Without word of the server for so long, and four times the usual, a device asks again."""

RELEASE_BYTES_MAX: Final = 256 * KIB * KIB
"""One image: an MCU has a few MiB, the agent's environment some dozens."""
RELEASE_METADATA_BYTES_MAX: Final = 1024 * KIB
"""One file of metadata about releases."""
RELEASE_ROOT_BYTES_MAX: Final = 32 * KIB
"""Whose signatures of releases count; comes with a device's identity."""
RELEASE_CHUNK_BYTES_MAX: Final = 64 * KIB
"""Of a release's file, in one message on `dn/chunk`; leaves room in a packet."""
RELEASE_WINDOW_BYTES_MAX: Final = 4 * RELEASE_CHUNK_BYTES_MAX
"""What a device may ask for at once over MQTT; it asks again when that has come."""

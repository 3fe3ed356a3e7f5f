"""The last retained message of each topic, bounded for each sender and as a whole."""

from collections import Counter

from broker_config.embedded.bounds import RETAINED_BYTES_MAX, RETAINED_MESSAGES_MAX
from broker_config.embedded.message import Key, Message
from broker_config.embedded.tree import Tree


class Retained:
    """A message without a sender counts for nobody but the whole."""

    def __init__(self, *, messages_max: int = RETAINED_MESSAGES_MAX, bytes_max: int = RETAINED_BYTES_MAX) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._tree: Tree[Message] = Tree()
        self._senders: Counter[Key | None] = Counter()
        self._bytes = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """What they take, without the objects around them."""
        return self._bytes

    def keep(self, message: Message, *, sender_max: int) -> bool:
        """Put *message* in its topic's place; an empty one clears it. False: over a bound, and nothing changed."""
        old = self._tree.get(message.topic)
        if message.payload:
            freed, own = (0, 0) if old is None else (old.size_bytes, old.sender == message.sender)
            if (
                self._count + (old is None) > self._messages_max
                or self._bytes + message.size_bytes - freed > self._bytes_max
                or (message.sender is not None and self._senders[message.sender] + 1 - own > sender_max)
            ):
                return False
        if old is not None:
            self._forget(old)
        if message.payload:
            self._tree.put(message.topic, message)
            self._senders[message.sender] += 1
            self._bytes += message.size_bytes
            self._count += 1
        return True

    def covered(self, pattern: str, now_s: float) -> list[Message]:
        """What a new subscriber to *pattern* finds; what has expired is forgotten on the way."""
        found = []
        for message in self._tree.covered(pattern):
            if message.expired(now_s):
                self._forget(message)
            else:
                found.append(message)
        return found

    def _forget(self, message: Message) -> None:
        self._tree.remove(message.topic)
        self._bytes -= message.size_bytes
        self._count -= 1
        self._senders[message.sender] -= 1
        if not self._senders[message.sender]:
            del self._senders[message.sender]

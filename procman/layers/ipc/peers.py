"""What the hub knows of its connections, messages and interfaces. Plain data; the rules are in the files beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from procman.layers.ipc.prefetch import Pace
from procman.layers.ipc.timers import Timer
from procman.layers.limits import Limits
from procman.layers.mailbox import FOREVER

Frame = tuple[Any, ...]
UNKNOWN = -1


class Peer:
    """One connection. ``out`` holds frames until the driver writes them.

    ``number`` tells it from the others of this hub. ``holds`` is in the order of delivery: the first is what a worker
    runs. ``sequence`` numbers its deliveries.
    """

    __slots__ = (
        "channels",
        "finishing",
        "has_delivery",
        "holds",
        "is_ack_urgent",
        "is_dirty",
        "is_excused",
        "label",
        "limits",
        "number",
        "out",
        "pace",
        "parked",
        "pid",
        "process",
        "receivers",
        "role",
        "sequence",
        "served",
        "wants_more",
    )

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.process = ""  # the same on all connections of a worker process
        self.out: list[Frame] = []
        self.is_dirty = False  # among those that the driver will ask for output
        self.is_excused = False  # its process ends on purpose, and not for what it runs here
        self.is_ack_urgent = False  # an acknowledgement in ``out`` is not to wait for the next delivery
        self.has_delivery = False  # in ``out``
        self.role = ""  # empty until HELLO
        self.label = "unknown"
        self.pid = 0
        self.limits = Limits()
        self.served: Served | None = None
        self.channels: frozenset[str] = frozenset()  # of its last TAKE
        self.holds: dict[str, Entry] = {}  # in flight here
        self.sequence = 0
        self.pace = Pace()
        self.finishing: dict[Batch, None] = {}  # its finishes that wait for room
        self.wants_more = False  # it has sent TAKE while its finish waits
        self.receivers: dict[int, Receiver] = {}
        self.parked: dict[int, Parked] = {}


@dataclass(slots=True, eq=False)
class Entry:
    """One message: waiting, held back after a restart, or in flight (``holder``).

    ``queue`` is where it waits (``prefix!`` for process-local channels). ``deaths`` counts workers that died with it
    (``UNKNOWN``: a hub that died may have handed it out, and that worker may have died too). ``sequence`` is its number
    among the deliveries of ``holder``, and ``is_begun`` whether that may have begun with it. ``then`` is the
    socket whose disconnect follows when this frame has ended. ``body`` None: a worker reported it as running and nobody
    has offered it again yet.
    """

    key: str
    channel: str
    queue: str
    body: bytes | None
    reply_channel: str | None = None
    deadline: float = FOREVER
    since: float = 0.0
    served: Served | None = None
    offer_id: int = 0
    is_redeliverable: bool = True
    is_bounded: bool = False
    is_flushed: bool = False
    session: bytes | None = None
    deaths: int = 0
    deferrals: int = 0
    holder: Peer | None = None
    sequence: int = 0
    is_begun: bool = False
    timer: Timer | None = None
    then: SocketRecord | None = None
    size: int = 0  # what it counts with in the ledger; does not change while it waits


@dataclass(slots=True, eq=False)
class SocketRecord:
    """The mirror of an accepted socket: enough to run its disconnect."""

    reply_channel: str
    path: str
    order: int
    session: bytes | None
    code: int = 1006
    size: int = 0


@dataclass(slots=True, eq=False)
class Served:
    """One interface: the owner of all channels below ``name!``."""

    name: str
    peer: Peer
    is_alive: bool = True
    has_reported: bool = False
    was_dead: bool = False  # declared so before this connection, and has to be told
    offers: dict[int, Entry] = field(default_factory=dict)  # until their end
    sockets: dict[str, SocketRecord] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Receiver:
    """A parked ``receive_many``."""

    peer: Peer
    rid: int
    channels: list[str]
    timer: Timer | None = None


@dataclass(slots=True, eq=False)
class Parked:
    """A ``send_when_room`` that waits."""

    peer: Peer
    rid: int
    entry: Entry


@dataclass(slots=True, eq=False)
class Batch:
    """A finish: the sends of one consumer, applied together. ``peers`` get the acknowledgement."""

    key: str
    entry: Entry | None
    sends: list[Any]
    session: bytes | None
    limits: Limits
    label: str
    peers: list[Peer]
    timer: Timer | None = None
    size: int = 0


@dataclass(slots=True, eq=False)
class EarlySend:
    """A group send of the first second after a restart, for interfaces that have not reported yet."""

    group: str
    body: bytes
    size: int = 0


@dataclass(slots=True, eq=False)
class EarlyPart:
    """A reply whose sender waits, for an interface that has not come yet."""

    peer: Peer
    rid: int
    channel: str
    body: bytes
    key: str
    size: int = 0


@dataclass(slots=True, eq=False)
class Log:
    """A record for the driver to emit."""

    level: int
    text: str
    arguments: tuple[Any, ...] = ()

"""Group membership: ordinary members that expire, and members that an interface holds.

Pure. Callers pass ``now`` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Iterator


class Groups:
    """Group -> member channels, each with a deadline."""

    __slots__ = ("_groups", "count")

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, float]] = {}
        self.count = 0  # of memberships

    def add(self, group: str, channel: str, deadline: float) -> None:
        """Make *channel* a member until *deadline*; adding it again renews the deadline."""
        members = self._groups.setdefault(group, {})
        if channel not in members:
            self.count += 1
        members[channel] = deadline

    def discard(self, group: str, channel: str) -> None:
        """Remove *channel* from *group*; not a member is fine."""
        members = self._groups.get(group)
        if members is not None and members.pop(channel, None) is not None:
            self.count -= 1
            if not members:
                del self._groups[group]

    def channels(self, group: str, now: float) -> list[str]:
        """The members of *group* at *now*."""
        members = self._groups.get(group)
        return [channel for channel, deadline in members.items() if deadline > now] if members else []

    def size(self, group: str, now: float) -> int:
        """How many members *group* has at *now*."""
        return sum(deadline > now for deadline in self._groups.get(group, {}).values())

    def take_prefix(self, prefix: str) -> list[tuple[str, str]]:
        """Remove and return every (group, channel) whose channel begins with *prefix*."""
        found = [
            (group, name) for group, members in self._groups.items() for name in members if name.startswith(prefix)
        ]
        for group, channel in found:
            self.discard(group, channel)
        return found

    def sweep(self, now: float) -> None:
        """Forget the memberships that have expired."""
        for group in list(self._groups):
            members = self._groups[group]
            for channel in [channel for channel, deadline in members.items() if deadline <= now]:
                self.discard(group, channel)

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()
        self.count = 0

    def __len__(self) -> int:
        return len(self._groups)


class HeldMembers:
    """The mirror of what interfaces hold: group -> interface -> channels. These memberships do not expire."""

    __slots__ = ("_by_channel", "_groups", "count")

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, set[str]]] = {}
        self._by_channel: dict[str, set[str]] = {}
        self.count = 0  # of memberships

    def add(self, group: str, interface: str, channel: str) -> None:
        """*channel*, held by *interface*, is a member of *group*."""
        channels = self._groups.setdefault(group, {}).setdefault(interface, set())
        if channel not in channels:
            self.count += 1
        channels.add(channel)
        self._by_channel.setdefault(channel, set()).add(group)

    def discard(self, group: str, interface: str, channel: str) -> bool:
        """*channel* is no member any more; whether it was."""
        groups = self._by_channel.get(channel)
        if groups is None or group not in groups:
            return False
        groups.discard(group)
        if not groups:
            del self._by_channel[channel]
        self.count -= 1
        holders = self._groups[group]
        holders[interface].discard(channel)
        if not holders[interface]:
            del holders[interface]
            if not holders:
                del self._groups[group]
        return True

    def remove_channel(self, interface: str, channel: str) -> None:
        """*channel* has ended: it leaves all its groups."""
        for group in list(self._by_channel.get(channel, ())):
            self.discard(group, interface, channel)

    def remove_interface(self, interface: str) -> None:
        """*interface* has ended: all its members leave."""
        for group in [group for group, holders in self._groups.items() if interface in holders]:
            for channel in list(self._groups[group][interface]):
                self.discard(group, interface, channel)

    def interfaces(self, group: str) -> Iterator[str]:
        """The interfaces that hold members of *group*."""
        return iter(self._groups.get(group, ()))

    def has(self, group: str, interface: str) -> bool:
        """Whether *interface* holds a member of *group*."""
        holders = self._groups.get(group)
        return holders is not None and interface in holders

    def channels(self, group: str) -> list[str]:
        """All held members of *group*."""
        return [channel for channels in self._groups.get(group, {}).values() for channel in channels]

    def size(self, group: str) -> int:
        """How many members of *group* are held."""
        return sum(len(channels) for channels in self._groups.get(group, {}).values())

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()
        self._by_channel.clear()
        self.count = 0

    def __len__(self) -> int:
        return len(self._groups)

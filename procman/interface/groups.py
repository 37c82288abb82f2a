"""Which local clients are in which group: what a group send fans out to.

Pure. The layer holds who is a member across all processes; this mirrors the members that this process holds, so that a
send to a group is one message for the interface, and no lookup per member. Bounded by the sockets that are open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Member = TypeVar("Member")


class Groups(Generic[Member]):
    """Membership of the clients of one interface server."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Member]] = {}
        self._groups: dict[str, set[str]] = {}

    def add(self, group: str, channel: str, member: Member) -> None:
        """Make *member*, known as *channel*, a member of *group*; twice is once."""
        self._members.setdefault(group, {})[channel] = member
        self._groups.setdefault(channel, set()).add(group)

    def discard(self, group: str, channel: str) -> None:
        """Remove *channel* from *group*; not a member is fine."""
        members = self._members.get(group)
        if members is not None and members.pop(channel, None) is not None:
            if not members:
                del self._members[group]
            groups = self._groups[channel]
            groups.discard(group)
            if not groups:
                del self._groups[channel]

    def forget(self, channel: str) -> None:
        """Remove *channel* from every group: its client has ended."""
        for group in self._groups.pop(channel, ()):
            members = self._members[group]
            del members[channel]
            if not members:
                del self._members[group]

    def members(self, group: str) -> list[Member]:
        """Members of *group* as of now: safe to walk while members end."""
        members = self._members.get(group)
        return list(members.values()) if members else []

    def memberships(self) -> Iterable[tuple[str, str]]:
        """Every (group, channel)."""
        return ((group, channel) for group, members in self._members.items() for channel in members)

    def clear(self) -> None:
        """Forget everything."""
        self._members.clear()
        self._groups.clear()

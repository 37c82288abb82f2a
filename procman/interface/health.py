"""Whether this interface lives, and whether the site behind it is ready, for load balancers and orchestrators.

Pure: (path, state) -> answer. The state is what the interface knows already, so an answer waits for nobody. Says
nothing of the project.
"""

from __future__ import annotations

from typing import NamedTuple

LIVE, READY = "/healthz", "/readyz"


class State(NamedTuple):
    """What is known. *workers* is how many were with the layer *age* seconds ago; None: it never said."""

    is_stopping: bool
    is_layer_lost: bool
    workers: int | None
    age: float
    max_age: float


def normalize(prefix: str) -> str:
    """The setting as the beginning of a path; empty if health answers are off."""
    prefix = prefix.strip().rstrip("/")
    if prefix in ("", "off"):
        return ""
    return prefix if prefix.startswith("/") else f"/{prefix}"


def answer(prefix: str, path: str, state: State) -> tuple[int, str] | None:
    """Status and text for *path*, None if it is no health path; *prefix* is ``normalize``'s.

    A process lives as long as it answers. It is ready when requests can be worked on: the text says why not.
    """
    if not prefix or not path.startswith(prefix):
        return None
    name = path[len(prefix) :]
    if name == LIVE:
        return 200, "ok"
    if name != READY:
        return None
    reason = why_not_ready(state)
    return (503, f"not ready: {reason}") if reason else (200, "ready")


def why_not_ready(state: State) -> str:
    """What keeps requests from being worked on; empty if nothing does."""
    if state.is_stopping:
        return "the server is stopping"
    if state.is_layer_lost:
        return "the channel layer is away"
    if state.workers is None or state.age > state.max_age:
        return "the channel layer does not answer"
    return "" if state.workers > 0 else "no worker takes messages"

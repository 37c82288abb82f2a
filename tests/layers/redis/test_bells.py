"""Threads that wait together on one connection."""

import threading

import pytest

from procman.layers.redis.bells import Bells
from procman.layers.redis.session import Session
from tests.layers.conformance import Make
from tests.support.redis import RedisServer
from tests.support.waiting import wait_until


def test_a_leader_hears_what_came_while_it_took_its_question_back(
    make: Make, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make()
    layer.statistics()  # connects
    bells: Bells = layer._bells
    cancel, heard = Bells._cancel, []

    def cancel_late(self: Bells, server: int, is_told: bool = False) -> None:
        if not is_told:
            shared_redis.client.rpush("own", "1")  # answered before the question can be taken back
        cancel(self, server, is_told)

    monkeypatch.setattr(Bells, "_cancel", cancel_late)

    def wait(key: bytes) -> threading.Thread:
        thread = threading.Thread(target=lambda: heard.append((key, bells.wait([(0, key)], 4, None))))
        thread.start()
        return thread

    first = wait(b"own")
    wait_until(lambda: bells._asked[0])
    second = wait(b"other")
    first.join(2)
    assert heard == [(b"own", (0, b"1"))]
    shared_redis.client.rpush("other", "2")
    second.join(2)
    assert heard[1:] == [(b"other", (0, b"2"))]


def test_a_question_that_the_server_reads_late_is_taken_back_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make()
    layer.statistics()
    bells: Bells = layer._bells
    bells.prepare([0])
    told = []
    post = Session.post

    def lose_the_first(self: Session, *command: object) -> None:
        told.append(command)
        if len(told) > 1:
            post(self, *command)

    monkeypatch.setattr(Session, "post", lose_the_first)
    link = bells._links[0]
    assert bells.wait([(0, b"nothing")], 0.1, None) is None
    assert bells._links[0] is link and len(told) >= 2

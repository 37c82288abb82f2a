"""Parts on their way to a client: together where they wait, at once where they do not, no more than the window."""

import threading

import pytest

from procman.channels.parts import WINDOW, Outbox
from procman.layers.errors import ReplyChannelGone
from tests.support.waiting import wait_until


class Line:
    """What was sent; the sender waits for ``is_open``."""

    def __init__(self):
        self.sent, self.is_open, self.failure = [], threading.Event(), None

    def send(self, response):
        assert self.is_open.wait(10)
        if self.failure is not None:
            raise self.failure
        self.sent.append(response)


@pytest.fixture
def line():
    line = Line()
    yield line
    line.is_open.set()


def part(content, more=True):
    return {"content": content, "more_content": more}


def never():
    return False


def test_what_waits_leaves_together_and_in_order(line):
    with Outbox(line.send, never) as outbox:
        for n in range(100):
            outbox.put(part(b"%d," % n))
        outbox.put({"more_content": False})
        line.is_open.set()
    assert b"".join(each["content"] for each in line.sent) == b"".join(b"%d," % n for n in range(100))
    assert len(line.sent) <= 3
    assert [each["more_content"] for each in line.sent] == [True] * (len(line.sent) - 1) + [False]


def test_a_part_that_nothing_waits_before_leaves_at_once(line):
    line.is_open.set()
    with Outbox(line.send, never) as outbox:
        for n in range(1, 4):
            outbox.put(part(b"x"))
            wait_until(lambda n=n: len(line.sent) == n)


def test_the_generator_is_paused_past_the_window(line):
    made = []

    def make():
        with Outbox(line.send, never) as outbox:
            for n in range(20):
                outbox.put(part(b"x" * (WINDOW // 2)))
                made.append(n)

    thread = threading.Thread(target=make)
    thread.start()
    wait_until(lambda: len(made) >= 2)
    thread.join(0.1)
    assert len(made) <= 4  # one is being sent, two fill the window
    assert not line.sent
    line.is_open.set()
    thread.join(10)
    assert len(made) == 20
    assert sum(len(each["content"]) for each in line.sent) == 10 * WINDOW
    assert max(len(each["content"]) for each in line.sent) <= WINDOW


def test_a_client_that_has_left_is_an_error_to_who_puts(line):
    line.failure = ReplyChannelGone("i!1")
    line.is_open.set()
    with pytest.raises(ReplyChannelGone), Outbox(line.send, never) as outbox:
        while True:
            outbox.put(part(b"x"))


def test_a_client_that_left_at_the_end_is_one_too(line):
    line.failure = ReplyChannelGone("i!1")
    with pytest.raises(ReplyChannelGone), Outbox(line.send, never) as outbox:
        outbox.put(part(b"x", more=False))
        line.is_open.set()


def test_what_was_made_before_an_error_leaves(line):
    line.is_open.set()
    with pytest.raises(ValueError, match="midway"), Outbox(line.send, never) as outbox:
        outbox.put(part(b"x"))
        raise ValueError("midway")
    assert line.sent == [part(b"x")]


def test_a_stop_does_not_wait_for_a_client_that_takes_nothing(line):
    with Outbox(line.send, lambda: True) as outbox:
        outbox.put(part(b"x" * WINDOW))
        assert outbox.is_ending
    assert line.sent == []

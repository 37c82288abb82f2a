"""Streams beside the messages of a worker: who takes them meanwhile, how many there may be, what a stop does."""

import threading

import pytest

from procman.channels import route
from procman.channels.parts import Parts
from procman.channels.streams import SPARES, TooManyStreams, streams
from procman.channels.worker import Worker, WorkerGroup
from procman.errors import ConfigurationError
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def bounds():
    before = streams.limit, streams.grace
    yield
    streams.limit, streams.grace = before
    assert streams.count == 0


def is_beside(thread):
    """Whether *thread* was made because another one streams."""
    return thread.name == "worker beside a stream"


class Place:
    """A worker with streams that last until ``may_end``, and messages that answer at once."""

    def __init__(self, layer, wrapper, n_threads=1):
        self.layer, self.may_end = layer, threading.Event()
        self.threads, self.streamed_by, self.closed = [], [], []
        wrapper.router.add_route(route("http.request", self.stream))
        wrapper.router.add_route(route("test", self.answer))
        if n_threads > 1:
            self.worker = WorkerGroup(wrapper, n_threads=n_threads, signal_handlers=False)
        else:
            self.worker = Worker(wrapper, signal_handlers=False)
        self.thread = threading.Thread(target=self.worker.run)

    def parts(self):
        try:
            yield {"content": b"two", "more_content": True}
            self.streamed_by.append(threading.get_ident())
            assert self.may_end.wait(10)
            yield {"content": b"three", "more_content": True}
            self.streamed_by.append(threading.get_ident())
            yield {"more_content": False}
        finally:
            self.closed.append(threading.get_ident())

    def stream(self, message):
        rest = self.parts()
        try:
            Parts(message, 1.0, 0.01).send_all({"status": 200, "content": b"one", "more_content": True}, rest)
        except TooManyStreams:
            message.reply_channel.send({"status": 503})
        finally:
            rest.close()

    def answer(self, message):
        self.threads.append(threading.get_ident())

    def deliver(self, streams=0, messages=0):
        for n in range(streams):
            self.layer.deliver("http.request", {"reply_channel": f"i!{n}", "path": "/"})
        for _ in range(messages):
            self.layer.deliver("test", {})

    def end(self):
        self.may_end.set()
        self.worker.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def place(layer, wrapper):
    place = Place(layer, wrapper)
    yield place
    place.end()


def test_messages_are_taken_while_streams_are_open(place):
    place.deliver(streams=5, messages=3)
    place.thread.start()
    wait_until(lambda: len(place.threads) == 3)
    assert streams.count == 5
    assert not place.closed
    assert len(place.layer.finished) == 3  # the messages: the requests stay in flight until their streams have ended
    place.end()
    assert len(place.layer.finished) == 8


def test_a_group_of_two_threads_takes_messages_beside_streams(layer, wrapper):
    place = Place(layer, wrapper, n_threads=2)
    place.deliver(streams=6, messages=3)
    place.thread.start()
    wait_until(lambda: len(place.threads) == 3)
    assert streams.count == 6
    place.end()
    assert len(place.closed) == 6


def test_a_generator_stays_in_the_thread_that_began_it(place):
    place.deliver(streams=1, messages=1)
    place.thread.start()
    wait_until(lambda: place.threads)
    place.may_end.set()
    wait_until(lambda: place.closed)
    assert len({*place.streamed_by, *place.closed}) == 1
    assert place.threads[0] not in place.streamed_by


def test_threads_are_used_again(place):
    place.may_end.set()
    place.deliver(streams=50, messages=1)
    place.thread.start()
    wait_until(lambda: place.threads)
    wait_until(lambda: len(place.closed) == 50)
    assert sum(map(is_beside, threading.enumerate())) <= SPARES + 1


def test_one_stream_too_many_is_refused_and_the_worker_goes_on(place):
    streams.limit = 2
    place.deliver(streams=3, messages=1)
    place.thread.start()
    wait_until(lambda: place.threads)
    assert streams.count == 2
    assert place.layer.sent() == [{"status": 503}]


def test_a_stop_waits_for_streams(place):
    place.deliver(streams=1, messages=1)
    place.thread.start()
    wait_until(lambda: place.threads)
    place.worker.stop()
    place.thread.join(0.1)
    assert place.thread.is_alive()
    place.end()
    assert [message.get("content") for _, message in place.layer.waited] == [b"one", b"two", b"three", None]


def test_a_stream_that_goes_on_after_the_grace_is_closed_and_cut(place):
    streams.grace = 0.0
    place.deliver(streams=1, messages=1)
    place.thread.start()
    wait_until(lambda: place.threads)
    place.worker.stop()
    wait_until(lambda: not any(map(is_beside, threading.enumerate())))  # who took messages has seen the stop
    place.end()
    assert len(place.closed) == 1
    assert [message.get("content") for _, message in place.layer.waited] == [b"one", b"two"]
    assert [message["failed"] for message in place.layer.sent()] == [True]


def test_an_error_beside_a_stream_ends_the_worker(layer, wrapper):
    place = Place(layer, wrapper)
    failures = []

    def run():
        try:
            place.worker.run()
        except ConfigurationError as error:
            failures.append(error)

    place.thread = threading.Thread(target=run)
    place.deliver(streams=1)
    layer.deliveries.append(ConfigurationError("this thread ends"))
    place.thread.start()
    wait_until(lambda: streams.count == 1 and place.worker.in_job is False)
    place.end()
    assert [str(error) for error in failures] == ["this thread ends"]


def test_without_a_loop_a_stream_keeps_its_caller(layer, wrapper):
    place = Place(layer, wrapper)
    place.may_end.set()
    place.deliver(streams=1)
    place.worker.step(["http.request"])
    assert streams.count == 0
    assert place.closed == [threading.get_ident()]

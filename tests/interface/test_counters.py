"""The numbers of an interface: what they count, and that no client can make more of them."""

from procman.interface.counters import BOUNDS, Counters, Histogram


def test_a_duration_is_counted_once_under_the_first_bound_that_holds_it():
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1] + 1):
        histogram.observe(seconds)
    assert histogram.counts[:2] == [2, 1] and histogram.counts[-1] == 1
    assert sum(histogram.counts) == 4 and histogram.total > BOUNDS[-1]


def test_open_sockets_are_those_that_were_accepted_and_have_not_ended():
    counters = Counters()
    counters.sockets_opened += 2
    counters.socket_closed(1001)
    assert counters.sockets_open == 1


def test_clients_cannot_make_labels_by_closing_with_codes_of_their_own():
    counters = Counters()
    for code in (1000, *range(3000, 5000)):
        counters.socket_closed(code)
    assert counters.sockets_closed == {"1000": 1, "3xxx": 1000, "4xxx": 1000}


def test_requests_are_counted_by_the_class_of_their_status():
    counters = Counters()
    for status in (0, 200, 204, 404, 599):
        counters.request_over(status, 0.01)
    assert counters.http_requests == {"left": 1, "1xx": 0, "2xx": 2, "3xx": 0, "4xx": 1, "5xx": 1}
    assert sum(counters.http_duration.counts) == 5


def test_a_finish_is_measured_where_its_channel_is_one_of_the_interfaces():
    counters = Counters()
    counters.finished("websocket.receive", 0.2)
    counters.finished("thumbnails", 0.2)
    assert sum(counters.durations["websocket.receive"].counts) == 1 and "thumbnails" not in counters.durations


def test_refusals_and_failures_are_counted_by_their_word():
    counters = Counters()
    counters.refused("max_sockets")
    counters.refused("max_sockets")
    counters.failed("lost")
    counters.socket_refused("origin")
    assert (counters.refusals, counters.failures) == ({"max_sockets": 2}, {"lost": 1})
    assert counters.sockets_refused == {"origin": 1}

from procman.supervision.logring import MERGED_BYTES, PROCESS_BYTES, LogRing


def test_the_last_of_each_and_of_all_is_kept() -> None:
    ring = LogRing()
    for number in range(100):
        ring.add("a", b"%02d" % number + b"x" * 9998)
    ring.add("b", b"last")
    assert PROCESS_BYTES <= len(ring.content("a")) < PROCESS_BYTES + 10_000
    assert ring.content("a").startswith(b"73x") and ring.end("a") == 1_000_000
    assert len(ring.content()) == 1_000_004 < MERGED_BYTES
    assert ring.content(only=["b"]) == ring.content("b") == b"last"
    assert ring.content("nobody") == b"" and ring.end("nobody") == 0


def test_what_is_cleared_or_forgotten_is_gone_and_counted() -> None:
    ring = LogRing()
    ring.add("a", b"one")
    ring.clear("a")
    ring.clear("nobody")
    assert (ring.content("a"), ring.end("a"), ring.content()) == (b"", 3, b"one")
    ring.clear()
    ring.add("a", b"two")
    ring.forget("a")
    assert (ring.content("a"), ring.content()) == (b"", b"two")


def test_followers_hear_of_each_block_until_they_leave() -> None:
    ring, heard = LogRing(), []

    def hear(name: str, data: bytes) -> None:
        heard.append((name, data))

    leave = ring.follow(hear)
    ring.add("a", b"one")
    ring.add("a", b"")
    leave()
    ring.add("a", b"two")
    assert heard == [("a", b"one")]

import os
import select
import signal

from procman.supervision.signals import SignalInbox


def test_signals_are_noted_in_order_and_wake_the_reader() -> None:
    inbox = SignalInbox()
    try:
        assert inbox.take() == []
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert select.select([inbox.fd], [], [], 5)[0]
        assert inbox.take() == [signal.SIGHUP, signal.SIGTERM]
        assert not select.select([inbox.fd], [], [], 0)[0]
    finally:
        inbox.close()


def test_closing_puts_the_earlier_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inbox = SignalInbox()
    assert signal.getsignal(signal.SIGTERM) != before
    inbox.close()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    inbox = SignalInbox()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        assert inbox.take() == []
    finally:
        inbox.close()
        signal.signal(signal.SIGHUP, before)


def test_more_signals_than_the_pipe_holds_do_not_block() -> None:
    inbox = SignalInbox()
    try:
        while True:  # fill the pipe
            try:
                os.write(inbox._write_fd, b"x" * 65536)
            except BlockingIOError:
                break
        os.kill(os.getpid(), signal.SIGHUP)
        assert inbox.take() == [signal.SIGHUP]
    finally:
        inbox.close()

"""What consumers do to their worker; each is asked for by its name in a frame."""

import contextlib
import logging
import os
import signal
import sys

from django.db import transaction

from procman.channels import Channel
from procman.channels.exceptions import ChannelSocketException


class Unspeakable(BaseException):
    """An exception that nobody can print."""

    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


class BrokenHandler(logging.Handler):
    """A log handler that raises."""

    def emit(self, record):
        raise SystemExit("the log is broken")


def raise_exit(message):
    sys.exit(3)


def raise_interrupt(message):
    raise KeyboardInterrupt


def raise_generator_exit(message):
    raise GeneratorExit


def raise_memory_error(message):
    raise MemoryError


def raise_unspeakable(message):
    raise Unspeakable


def raise_abstract(message):
    raise ChannelSocketException


def recurse(message):
    recurse(message)


def lower_recursion_limit(message):
    sys.setrecursionlimit(60)


def fork_and_return(message):
    if (pid := os.fork()) != 0:
        os.waitpid(pid, 0)


def fork_and_raise(message):
    if (pid := os.fork()) == 0:
        raise ValueError("in the child")
    os.waitpid(pid, 0)


def replace_signal_handlers(message):
    with contextlib.suppress(ValueError):  # where the worker has threads, consumers may not run in the main one
        signal.signal(signal.SIGTERM, lambda *args: os._exit(1))


def change_directory(message):
    os.chdir("/")


def close_stdout(message):
    sys.stdout.close()


def leave_transaction_open(message):
    transaction.atomic().__enter__()


def forget_the_message(message):
    message.content = message.channel = message.reply_channel = None
    raise ValueError


def send_to_a_full_channel(message):
    for number in range(150):
        Channel("nobody").send({"number": number})


def send_too_much(message):
    message.reply_channel.send({"text": "x" * 30_000_000})


def send_what_is_no_data(message):
    message.reply_channel.send({"text": object()})


def break_logging(message):
    logger = logging.getLogger("django.channels")
    logger.addHandler(handler := BrokenHandler())
    handlers.append(handler)
    raise ValueError("shown without logging")


def close_stderr(message):
    sys.stderr.close()
    raise ValueError


handlers: list[logging.Handler] = []
HARDSHIPS = [
    *(raise_exit, raise_interrupt, raise_generator_exit, raise_memory_error, raise_unspeakable, raise_abstract),
    *(recurse, lower_recursion_limit, fork_and_return, fork_and_raise, replace_signal_handlers, change_directory),
    *(close_stdout, leave_transaction_open, forget_the_message, send_what_is_no_data, send_too_much),
    *(send_to_a_full_channel, break_logging, close_stderr),
]


def ws_receive(message):
    """Do what the frame says, then answer with the worker's pid."""
    for handler in handlers:
        logging.getLogger("django.channels").removeHandler(handler)
    with transaction.atomic(durable=True):  # fails within a transaction that an earlier message has left
        name = message["text"]
    for hardship in HARDSHIPS:
        if hardship.__name__ == name:
            hardship(message)
    message.reply_channel.send({"text": str(os.getpid())})

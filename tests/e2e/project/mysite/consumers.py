"""An echo that counts in its channel session, and a group that everybody joins."""

import json
import os
import signal

from mysite.marks import mark
from procman.channels import Channel, Group
from procman.channels.sessions import channel_session


@channel_session
def ws_connect(message):
    """Accept, join the group, remember the path."""
    if message["path"] == "/broken/":
        raise ValueError("asked to")
    mark("connect", path=message["path"])
    message.channel_session["path"] = message["path"]
    message.channel_session["count"] = 0
    message.reply_channel.send({"accept": True})
    Group("everybody").add(message.reply_channel)


@channel_session
def ws_receive(message):
    """Echo with the number of the frame; a few texts are commands."""
    text = message.content.get("text")
    if text == "die":
        mark("die", redelivered=message.redelivered)
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "die once" and not message.redelivered:
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "hang":
        mark("hang", how="frame")
        signal.pause()
    if text == "raise":
        raise ValueError("asked to")
    if text == "exit":
        raise SystemExit(3)
    if text is None:
        message.reply_channel.send({"bytes": message.content["bytes"]})
        return
    if text.startswith("say "):
        Group("everybody").send({"text": text})
        return
    if text == "how many":
        message.reply_channel.send({"text": f"{Group('everybody').count()} of us"})
        return
    if text.startswith("background "):
        Channel("background").send({"text": text, "reply_channel": message.reply_channel.name})
        return
    if text.startswith("remember "):
        Channel("memories").send({"text": text[9:], "reply_channel": message.reply_channel.name})
        return
    message.channel_session["count"] += 1
    message.reply_channel.send({"text": json.dumps({"echo": text, "count": message.channel_session["count"]})})


@channel_session
def ws_disconnect(message):
    """Leave a mark with what the session held."""
    Group("everybody").discard(message.reply_channel)
    mark(
        "disconnect",
        code=message["code"],
        path=message["path"],
        count=message.channel_session.get("count"),
        session_path=message.channel_session.get("path"),
        remembered=message.channel_session.get("remembered"),
    )


def background(message):
    """Answer from a channel of our own; "slow" takes so long that the worker is ended meanwhile."""
    mark("background", redelivered=message.redelivered)
    if message["text"] == "background slow" and not message.redelivered:
        signal.pause()
    message.reply_channel.send({"text": "done: " + message["text"]})


def answers(message):
    """Answer a request whose view has left that to us, in as many parts as it asked for."""
    start = {"status": 202, "headers": [(b"Content-Type", b"text/plain"), (b"X-Answered-By", b"consumer")]}
    for number in range(1, message["parts"]):
        message.reply_channel.send({**start, "content": b"part %d, " % number, "more_content": True})
        start = {}
    message.reply_channel.send({**start, "content": b"the end"})


def forgotten(message):
    """Answer nobody."""


@channel_session
def memories(message):
    """Change the socket's session from a channel of our own."""
    message.channel_session["remembered"] = message["text"]
    message.reply_channel.send({"text": f"remembered on {message.channel_session['path']}"})


def bare_connect(message):
    """Accept, nothing else: the least that an echo needs."""
    message.reply_channel.send({"accept": True})


def bare_receive(message):
    """Echo, nothing else; or close with the code that is asked for."""
    if message["text"].startswith("close "):
        message.reply_channel.send({"close": int(message["text"].removeprefix("close "))})
    else:
        message.reply_channel.send({"text": message["text"]})

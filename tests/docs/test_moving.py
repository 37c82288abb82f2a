"""A small Channels 1.x project moves as the page says: its command for the imports, its settings, nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.processes import running_site

PAGE = Path(__file__).parents[2] / "docs" / "moving.md"

# In the style of 1.x projects: decorators, an include, a class, a custom channel, imports within functions.
CONSUMERS = """
from channels import Channel, Group
from channels.auth import channel_session_user, channel_session_user_from_http
from channels.generic.websockets import JsonWebsocketConsumer
from channels.sessions import enforce_ordering


@enforce_ordering
@channel_session_user_from_http
def ws_connect(message, room):
    message.channel_session["room"] = room
    Group("chat-%s" % room).add(message.reply_channel)
    message.reply_channel.send({"accept": True})


@enforce_ordering
@channel_session_user
def ws_receive(message):
    Channel("chat-messages").send({"room": message.channel_session["room"], "message": message["text"]})


@enforce_ordering
@channel_session_user
def ws_disconnect(message):
    Group("chat-%s" % message.channel_session["room"]).discard(message.reply_channel)


def msg_consumer(message):
    from channels import Group as Late
    Late("chat-%s" % message.content["room"]).send({"text": message.content["message"]})


class Echo(JsonWebsocketConsumer):
    strict_ordering = True

    def receive(self, content, **kwargs):
        self.send({"echo": content})
"""
ROUTING = """
from channels.routing import include, route, route_class
from mysite.consumers import Echo, msg_consumer, ws_connect, ws_disconnect, ws_receive

chat_routing = [
    route("websocket.connect", ws_connect, path=r"^/(?P<room>[a-z]+)/$"),
    route("websocket.receive", ws_receive),
    route("websocket.disconnect", ws_disconnect),
]
channel_routing = [
    route_class(Echo, path=r"^/echo/$"),
    include(chat_routing, path=r"^/chat"),
    route("chat-messages", msg_consumer),
]
"""


@pytest.mark.slow
def test_the_pages_command_and_settings_move_a_project(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)

    run(sys.executable, "-m", "django", "startproject", "mysite", ".")
    (tmp_path / "mysite" / "consumers.py").write_text(CONSUMERS)
    (tmp_path / "mysite" / "routing.py").write_text(ROUTING)
    run("git", "init", "-q")
    run("git", "add", "-A")
    page = PAGE.read_text()
    command = re.search(r"^\$ (git ls-files .*)$", page, re.M)
    assert command is not None
    run("sh", "-c", command[1])
    moved = (tmp_path / "mysite" / "consumers.py").read_text()
    assert not re.search(r"(from|import) channels", moved)
    layers = re.search(r"^CHANNEL_LAYERS = \{\n.*?^\}\n", page, re.S | re.M)
    assert layers is not None
    with (tmp_path / "mysite" / "settings.py").open("a") as added:
        added.write(f'\nINSTALLED_APPS.insert(0, "procman.channels")\n{layers[0]}')
    run(sys.executable, "manage.py", "check")
    run(sys.executable, "manage.py", "migrate", "-v0")
    with running_site(tmp_path, "--workers", "2") as site:
        with connect(f"{site.ws_url}/chat/lobby/") as ann, connect(f"{site.ws_url}/chat/lobby/") as bob:
            ann.send("hello")
            assert ann.recv(10) == bob.recv(10) == "hello"
        with connect(f"{site.ws_url}/echo/") as client:
            client.send('{"a": 1}')
            assert client.recv(10) == '{"echo": {"a": 1}}'

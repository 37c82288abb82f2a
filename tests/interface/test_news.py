import dataclasses
import json
import logging
import os
from typing import Any

import pytest

from procman.interface import news
from procman.settings import ENV_NEWS_FD, ProjectConfiguration
from tests.support.waiting import wait_until

PROJECT = ProjectConfiguration("mysite.settings", "ipc:///x.sock", {"capacity": 5}, ["old.example"], debug=True)


class Site:
    """What a site is told."""

    def __init__(self) -> None:
        self.project, self.page = dataclasses.replace(PROJECT, layer="ipc:///as/started.sock"), ""

    def use(self, project: ProjectConfiguration) -> None:
        self.project = project

    def show(self, page: str) -> None:
        self.page = page


def described(**fields: Any) -> dict[str, Any]:
    return {"project": json.loads(dataclasses.replace(PROJECT, **fields).to_json())}


def test_settings_of_the_interface_are_followed_and_its_layer_is_not(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    follow = news.Follower(site)  # type: ignore[arg-type]
    follow(described())
    follow(described(allowed_hosts=["new.example"], static_url="/s/"))
    assert site.project.allowed_hosts == ["new.example"] and site.project.static_url == "/s/"
    assert site.project.layer == "ipc:///as/started.sock" and caplog.text == ""
    with caplog.at_level(logging.WARNING, "procman"):
        for _ in range(2):
            follow(described(layer="redis://elsewhere/0"))
    assert caplog.text.count("CHANNEL_LAYERS has changed") == 1
    assert site.project.layer == "ipc:///as/started.sock"


def test_the_page_shows_why_the_code_does_not_run_until_it_is_changed() -> None:
    site = Site()
    follow = news.Follower(site)  # type: ignore[arg-type]
    follow({"broken": "SyntaxError: <b>"})
    assert "SyntaxError: &lt;b&gt;" in site.page
    follow({"changed": ["a.py"]})
    assert site.page == ""


def test_lines_of_the_pipe_are_heard_and_odd_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setenv(ENV_NEWS_FD, str(read))
    assert news.is_wanted()
    heard: list[dict[str, Any]] = []
    news.watch_news(heard.append)
    os.write(write, b'{"changed": []}\nnonsense\n{"broken": "x"}\n')
    os.close(write)
    wait_until(lambda: len(heard) == 2)
    assert heard == [{"changed": []}, {"broken": "x"}]
    assert not news.is_wanted()

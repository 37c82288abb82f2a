"""Static files before the views, in development only."""

import pytest
from django.test import override_settings

from procman.channels.handler import ViewConsumer
from procman.channels.staticfiles import StaticFilesConsumer, consumer_for_project
from procman.channels.worker import Worker


def serve(wrapper, path):
    """The status of a GET and its whole content."""
    wrapper.router.check_default(StaticFilesConsumer())
    layer = wrapper.channel_layer
    layer.deliver("http.request", {"reply_channel": "i!1", "method": "GET", "path": path, "http_version": "1.1"})
    Worker(wrapper).step(["http.request"])
    messages = [message for _, message in layer.waited] + layer.sent()
    return messages[0]["status"], b"".join(message.get("content", b"") for message in messages)


def test_a_static_file_is_served_by_the_finders(wrapper):
    status, content = serve(wrapper, "/static/admin/css/base.css")
    assert status == 200
    assert b"DJANGO Admin styles" in content


def test_everything_else_goes_to_the_views(wrapper):
    assert serve(wrapper, "/hello/") == (200, b"hello")


@pytest.mark.parametrize("debug", [False, True])
def test_an_unknown_static_file_is_not_found(wrapper, debug):
    with override_settings(DEBUG=debug):
        assert serve(wrapper, "/static/no/such.css")[0] == 404


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", ["/static/../../secret", "/static/..%2f..%2fsecret", "/static//etc/passwd"])
def test_a_path_that_leads_out_of_the_static_files_is_refused(wrapper, path, debug):
    with override_settings(DEBUG=debug):
        assert serve(wrapper, path.replace("%2f", "/"))[0] in (400, 404)


def test_debug_decides():
    assert type(consumer_for_project()) is ViewConsumer
    with override_settings(DEBUG=True):
        assert type(consumer_for_project()) is StaticFilesConsumer

"""Test cases as a project writes them; ``test_liveserver.py`` runs them with Django's own runner."""

import threading
import unittest
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group as People
from django.test import LiveServerTestCase, override_settings
from playwright.sync_api import expect
from websockets.sync.client import ClientConnection, connect

from procman.channels import Group, channel_layers, route
from procman.channels.test import ChannelLiveServerTestCase, apply_routes
from tests.channels.test.live import routing
from tests.support.chromium import running_chromium


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("worker-", "interface"))}


PAGE = """
<p id="state"></p><p id="last"></p>
<script>
  const show = (id, text) => document.getElementById(id).textContent = text;
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat/");
  socket.onopen = () => show("state", "open");
  socket.onmessage = (event) => show("last", event.data);
</script>
"""


class SiteTests(ChannelLiveServerTestCase):
    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        assert not threads(), threads()

    def open(self, **options: Any) -> ClientConnection:
        return self.enterContext(connect(f"{self.live_server_ws_url}/chat/", **options))

    def test_views_are_served(self) -> None:
        with urlopen(f"{self.live_server_url}/hello/", timeout=10) as response:
            self.assertEqual((response.status, response.read()), (200, b"hello"))

    def test_static_files_are_served_although_debug_is_off(self) -> None:
        with urlopen(f"{self.live_server_url}/static/admin/css/base.css", timeout=10) as response:
            self.assertIn(b"body", response.read())

    def test_sockets_meet_each_other_and_what_the_test_sends(self) -> None:
        one, two = self.open(), self.open()
        one.send("hi")
        for socket in (one, two):
            self.assertEqual(socket.recv(10), "AnonymousUser: hi (as set)")
        Group("chat").send({"text": "from the test"})
        self.assertEqual(two.recv(10), "from the test")
        self.assertEqual(channel_layers["default"].capacity, 7)

    def test_consumers_and_the_test_share_the_database(self) -> None:
        user = get_user_model().objects.create_user("ada")
        self.client.force_login(user)
        cookie = f"sessionid={self.client.cookies['sessionid'].value}"
        socket = self.open(additional_headers={"Cookie": cookie})
        socket.send("hi")
        self.assertEqual(socket.recv(10), "ada: hi (as set)")
        self.assertEqual(People.objects.count(), 1)

    def test_settings_of_a_test_reach_the_consumers(self) -> None:
        socket = self.open()
        with self.settings(WORD="as the test has it"):
            socket.send("hi")
            self.assertEqual(socket.recv(10), "AnonymousUser: hi (as the test has it)")

    def test_foreign_pages_are_refused_as_on_a_site(self) -> None:
        with self.assertRaisesRegex(Exception, "403"):
            self.open(origin="http://evil.example")
        self.open(origin=self.live_server_url)

    def test_sockets_that_are_left_open_are_disconnected_before_the_database_is_emptied(self) -> None:
        class Inner(SiteTests):
            def test(self) -> None:
                self.people = People.objects.count
                left_open.append(connect(f"{self.live_server_ws_url}/chat/").__enter__())

            def _post_teardown(self) -> None:
                seen.append(self.people())
                super()._post_teardown()

        seen: list[int] = []
        left_open: list[ClientConnection] = []
        routing.disconnected.clear()
        result = unittest.TestResult()
        Inner("test")(result)
        self.assertEqual(result.errors, [])
        self.assertEqual(routing.disconnected, ["AnonymousUser"])
        self.assertEqual(seen, [0])
        left_open[0].close()

    def test_chromium_sees_what_another_one_writes(self) -> None:
        with running_chromium() as browser:
            pages = [browser.new_page() for _ in range(2)]
            for page in pages:
                page.goto(f"{self.live_server_url}/hello/")
                page.set_content(PAGE)
                expect(page.locator("#state")).to_have_text("open")
            pages[0].evaluate("socket.send('hi')")
            expect(pages[1].locator("#last")).to_have_text("AnonymousUser: hi (as set)")


@apply_routes([route("http.request", "tests.channels.test.live.routing.disconnect")])
class RoutesTests(ChannelLiveServerTestCase):
    worker_threads = 2
    serve_static = False
    host = "127.0.0.1"

    def test_routes_of_the_class_are_served_by_as_many_workers_as_asked(self) -> None:
        self.assertIs(channel_layers["default"].routing[0].consumer, routing.disconnect)
        self.assertEqual(threads(), {"worker-1", "worker-2", "interface"})
        self.assertTrue(self.live_server_url.startswith("http://127.0.0.1:"))


class NoStaticTests(ChannelLiveServerTestCase):
    serve_static = False

    def test_static_files_stay_away_when_they_are_not_wanted(self) -> None:
        with self.assertRaises(HTTPError) as refused:
            urlopen(f"{self.live_server_url}/static/admin/css/base.css", timeout=10)
        self.assertEqual(refused.exception.code, 404)
        refused.exception.close()


class TroubleTests(unittest.TestCase):
    def test_server_that_cannot_start_is_an_error_of_its_test(self) -> None:
        class Unreachable(ChannelLiveServerTestCase):
            host = "192.0.2.1"  # nobody's

            def test(self) -> None: ...

            @unittest.skip("not today")
            def test_skipped(self) -> None: ...

        before = channel_layers["default"]
        result = unittest.TestResult()
        Unreachable("test").run(result)
        Unreachable("test_skipped").run(result)
        self.assertEqual((len(result.errors), len(result.skipped)), (1, 1))
        self.assertIn("OSError", result.errors[0][1])
        with self.assertRaises(OSError):
            Unreachable("test").debug()
        self.assertIs(channel_layers["default"], before)
        self.assertEqual(threads(), set())


class DjangoTests(LiveServerTestCase):
    def test_djangos_own_live_server_serves_the_views(self) -> None:
        with override_settings(WORD="unused"), urlopen(f"{self.live_server_url}/hello/", timeout=10) as response:
            self.assertEqual(response.read(), b"hello")

"""The JavaScript client in a real browser, against a real site; its types against a real compiler."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import procman
from tests.support.chromium import running_chromium
from tests.support.processes import Site, running_site

SCRIPTS = Path(procman.__file__).parent / "channels" / "static" / "channels" / "js"
# Opens a bridge to the echo as `bridge`; `got` has what came, `events` what happened to the socket.
OPEN = """(options) => new Promise((resolve) => {
    window.got = []; window.events = [];
    window.bridge = new channels.WebSocketBridge(options ?? {});
    bridge.connect("/bare/");
    bridge.listen((message) => got.push(message));
    for (const type of ["open", "close", "reconnecting"])
        bridge.socket.addEventListener(type, (event) => events.push(event.code ?? type));
    bridge.socket.addEventListener("open", resolve, { once: true });
})"""
# A class for `options.WebSocket` that never touches the network.
FAKES = """() => {
    window.made = [];
    window.FakeSocket = class extends EventTarget {
        constructor(url, protocols) { super(); this.url = url; this.readyState = 0; this.sent = []; made.push(this); }
        send(data) { this.sent.push(data); }
        close(code = 1005, reason = "") { this.fail(code, reason); }
        open() { this.readyState = 1; this.dispatchEvent(new Event("open")); }
        fail(code = 1006, reason = "") {
            if (this.readyState === 3) return;
            this.readyState = 3;
            this.dispatchEvent(new CloseEvent("close", { code, reason }));
        }
    };
    Math.random = () => 1;
}"""


@pytest.fixture(scope="module")
def site(project: Path) -> Iterator[Site]:
    with running_site(project, "--workers", "2", environ={"DEBUG": "1"}) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page(site: Site, browser: Browser) -> Iterator[Page]:
    """A page with the plain script, which must not throw."""
    page = browser.new_context().new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{site.url}/admin/login/")
    page.add_script_tag(url="/static/channels/js/websocketbridge.js")
    yield page
    page.context.close()
    assert not errors


def wait_for(page: Page, expression: str) -> Any:
    return page.wait_for_function(expression).json_value()


# -- what 1.x promised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, "{scheme}://{host}"),
        ("/path/?a=1", "{scheme}://{host}/path/?a=1"),
        ("//other.test/x", "{scheme}://other.test/x"),
        ("ws://other.test/x", "ws://other.test/x"),
        ("https://other.test/x", "wss://other.test/x"),
    ],
)
@pytest.mark.parametrize("is_secure", [False, True])
def test_the_url_is_that_of_the_page_unless_another_is_given(
    site: Site, browser: Browser, target: str | None, expected: str, is_secure: bool
) -> None:
    page = browser.new_context().new_page()
    if is_secure:
        page.route("https://page.test/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
        page.goto("https://page.test/")
        page.add_script_tag(path=SCRIPTS / "websocketbridge.js")
    else:
        page.goto(f"{site.url}/admin/login/")
        page.add_script_tag(url="/static/channels/js/websocketbridge.js")
    page.evaluate(FAKES)
    url = page.evaluate(
        """(target) => {
            const bridge = new channels.WebSocketBridge({ WebSocket: FakeSocket });
            bridge.connect(target);
            return made[0].url;
        }""",
        target,
    )
    host, scheme = ("page.test", "wss") if is_secure else (site.url.partition("://")[2], "ws")
    assert url == expected.format(scheme=scheme, host=host)
    page.context.close()


def test_messages_outside_of_streams_go_to_the_listener(page: Page) -> None:
    page.evaluate(OPEN)
    page.evaluate("() => { window.second = []; bridge.listen((...all) => second.push(all)); bridge.send({ a: 1 }); }")
    assert wait_for(page, "second.length === 1 && second") == [[{"a": 1}, None]]
    page.evaluate("bridge.send([1, null])")
    assert wait_for(page, "second.length === 2 && second[1]") == [[1, None], None]


def test_messages_of_a_stream_go_to_who_registered_for_it_alone(page: Page) -> None:
    page.evaluate(OPEN)
    page.evaluate("() => { window.one = []; bridge.demultiplex('one', (...all) => one.push(all)); }")
    page.evaluate("bridge.stream('nobody').send({ lost: true })")
    page.evaluate("bridge.stream('one').send({ action: 'create' })")
    assert wait_for(page, "one.length === 1 && one") == [[{"action": "create"}, "one"]]
    page.evaluate("bridge.send('end')")
    assert wait_for(page, "got.length && got") == ["end"]


def test_a_bridge_without_a_listener_takes_messages(page: Page) -> None:
    page.evaluate(OPEN)
    assert page.evaluate(
        """() => new Promise((resolve) => {
            const other = new channels.WebSocketBridge();
            other.connect("/bare/");
            other.listen();
            other.socket.addEventListener("message", (event) => resolve(event.data));
            other.send({ text: "heard by nobody" });
        })"""
    ) == json.dumps({"text": "heard by nobody"}, separators=(",", ":"))


# -- frames ----------------------------------------------------------------------------------------------------------


def test_a_broken_frame_and_a_failing_listener_stop_nothing(site: Site, browser: Browser) -> None:
    page = browser.new_context().new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{site.url}/admin/login/")
    page.add_script_tag(url="/static/channels/js/websocketbridge.js")
    page.evaluate(OPEN)
    page.evaluate("bridge.demultiplex('bad', () => { throw new Error('on purpose'); })")
    page.evaluate("() => { bridge.socket.send('no json'); bridge.stream('bad').send({}); bridge.send('last'); }")
    assert wait_for(page, "got.length && got") == ["last"]
    assert errors == ["on purpose"]
    page.context.close()


def test_binary_frames_are_passed_on(page: Page) -> None:
    assert page.evaluate(
        """() => new Promise((resolve) => {
            const bridge = new channels.WebSocketBridge();
            bridge.connect("/");
            bridge.socket.binaryType = "arraybuffer";
            bridge.listen((data, stream) => resolve([[...new Uint8Array(data)], stream]));
            bridge.socket.send(new Uint8Array([1, 2, 255]));
        })"""
    ) == [[1, 2, 255], None]


# -- coming back -----------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_not_noticed(site: Site, page: Page) -> None:
    page.evaluate(OPEN)
    for name in ("worker.1", "worker.2"):
        site.kill(name)
    page.evaluate("bridge.send('still here')")
    assert wait_for(page, "got.length && got") == ["still here"]
    assert page.evaluate("events") == ["open"]


def test_it_comes_back_when_the_interface_was_killed_and_sends_what_waited(site: Site, page: Page) -> None:
    page.evaluate(OPEN, {"minReconnectionDelay": 50})
    page.evaluate("bridge.socket.addEventListener('open', () => bridge.send('hello again'))")
    page.evaluate("bridge.socket.addEventListener('close', () => { bridge.send(1); bridge.send(2); }, { once: true })")
    site.kill("interface.1")
    assert wait_for(page, "got.length === 3 && got") == ["hello again", 1, 2]
    assert page.evaluate("events.slice(0, 3)") == ["open", 1006, "reconnecting"]


def test_waits_grow_to_the_longest_and_begin_anew_after_a_stable_connection(page: Page) -> None:
    page.clock.install()
    page.evaluate(FAKES)
    delays = page.evaluate(
        """() => {
            window.delays = [];
            window.socket = new channels.ReconnectingWebSocket("ws://x", [], { WebSocket: FakeSocket });
            socket.addEventListener("reconnecting", ({ detail }) => delays.push(detail.delay));
            made[0].fail();
            return delays;
        }"""
    )
    for _ in range(6):
        page.clock.run_for(delays[-1])
        delays = page.evaluate("() => { made.at(-1).fail(); return delays; }")
    assert delays == [1000, 2000, 4000, 8000, 16000, 30000, 30000]
    page.clock.run_for(30_000)
    page.evaluate("made.at(-1).open()")
    page.clock.run_for(4_000)
    assert page.evaluate("() => { made.at(-1).fail(); return delays.at(-1); }") == 30000
    page.clock.run_for(30_000)
    page.evaluate("made.at(-1).open()")
    page.clock.run_for(6_000)
    assert page.evaluate("() => { made.at(-1).fail(); return delays.at(-1); }") == 1000


def test_waits_are_a_random_part_of_the_longest(page: Page) -> None:
    page.evaluate(FAKES)
    assert (
        page.evaluate(
            """() => {
            Math.random = () => 0.25;
            const socket = new channels.ReconnectingWebSocket("ws://x", [], { WebSocket: FakeSocket });
            let delay = null;
            socket.onreconnecting = ({ detail }) => (delay = detail.delay);
            made[0].fail();
            return delay;
        }"""
        )
        == 250
    )


def test_an_attempt_that_hangs_is_given_up(page: Page) -> None:
    page.clock.install()
    page.evaluate(FAKES)
    page.evaluate("() => { new channels.ReconnectingWebSocket('ws://x', [], { WebSocket: FakeSocket }); }")
    page.clock.run_for(9_000)
    assert page.evaluate("made.length") == 1
    page.clock.run_for(2_000)
    assert page.evaluate("made.length") == 2


def test_it_gives_up_after_as_many_attempts_as_allowed(page: Page) -> None:
    page.clock.install()
    page.evaluate(FAKES)
    page.evaluate(
        """() => {
            const options = { WebSocket: FakeSocket, maxRetries: 2 };
            window.socket = new channels.ReconnectingWebSocket("ws://x", [], options);
        }"""
    )
    for _ in range(2):
        page.evaluate("made.at(-1).fail()")
        page.clock.run_for(60_000)
    page.evaluate("made.at(-1).fail()")
    page.clock.run_for(120_000)
    assert page.evaluate("[made.length, socket.readyState]") == [3, 3]


@pytest.mark.parametrize("event", ["online", "visibilitychange"])
def test_it_connects_at_once_when_the_network_or_the_reader_is_back(page: Page, event: str) -> None:
    page.clock.install()
    page.evaluate(FAKES)
    count = page.evaluate(
        """(name) => {
            new channels.ReconnectingWebSocket("ws://x", [], { WebSocket: FakeSocket });
            made[0].fail();
            (name === "online" ? window : document).dispatchEvent(new Event(name));
            return made.length;
        }""",
        event,
    )
    assert count == 2
    page.clock.run_for(9_000)  # the timer that it did not wait for is gone
    assert page.evaluate("made.length") == 2


@pytest.mark.parametrize("code", [1000, 4001, 4999])
def test_it_stays_closed_when_the_application_has_closed(page: Page, code: int) -> None:
    page.evaluate(OPEN)
    page.evaluate(f"bridge.socket.send('close {code}')")
    wait_for(page, "events.length === 2")
    assert page.evaluate("[events, bridge.socket.readyState, bridge.send('x')]") == [["open", code], 3, False]


@pytest.mark.parametrize("code", [1011, 1012, 1013, 3000])
def test_it_comes_back_when_the_server_only_had_to_close(page: Page, code: int) -> None:
    page.evaluate(OPEN, {"minReconnectionDelay": 10})
    page.evaluate(f"bridge.socket.send('close {code}')")
    assert wait_for(page, "events.length === 4 && events") == ["open", code, "reconnecting", "open"]


def test_the_page_may_decide_itself_when_to_come_back(page: Page) -> None:
    page.evaluate(FAKES)
    counts = page.evaluate(
        """() => {
            const asked = [];
            const shouldReconnect = (event) => { asked.push(event.code); return false; };
            new channels.ReconnectingWebSocket("ws://x", [], { WebSocket: FakeSocket, shouldReconnect });
            made[0].fail(1012);
            return [asked, made.length];
        }"""
    )
    assert counts == [[1012], 1]


def test_what_the_page_closes_stays_closed(page: Page) -> None:
    page.clock.install()
    page.evaluate(FAKES)
    page.evaluate(
        """() => {
            window.codes = [];
            window.bridge = new channels.WebSocketBridge({ WebSocket: FakeSocket });
            bridge.connect("/x");
            bridge.socket.onclose = ({ code }) => codes.push(code);
            made[0].fail();
            bridge.close(1000);
        }"""
    )
    page.clock.run_for(120_000)
    assert page.evaluate("[made.length, codes, bridge.socket.readyState]") == [1, [1006, 1000], 3]


def test_connecting_again_closes_the_connection_before(page: Page) -> None:
    page.evaluate(OPEN)
    page.evaluate("() => { window.before = bridge.socket; bridge.connect('/bare/'); bridge.send('new'); }")
    assert wait_for(page, "got.length && got") == ["new"]
    assert page.evaluate("before.readyState >= 2")


# -- sending without a connection ------------------------------------------------------------------------------------


def test_a_bounded_number_of_messages_waits_for_the_connection(page: Page) -> None:
    page.evaluate(FAKES)
    result = page.evaluate(
        """() => {
            const socket = new channels.ReconnectingWebSocket("ws://x", [], {
                WebSocket: FakeSocket, maxQueuedMessages: 2,
            });
            const taken = ["a", "b", "c"].map((text) => socket.send(text));
            const waiting = socket.queuedCount;
            made[0].open();
            return [taken, waiting, made[0].sent, socket.queuedCount];
        }"""
    )
    assert result == [[True, True, False], 2, ["a", "b"], 0]


def test_what_json_has_nothing_for_is_refused_where_it_is_sent(page: Page) -> None:
    page.evaluate(OPEN)
    for value in ("undefined", "() => 1"):
        assert "JSON has nothing" in page.evaluate(
            f"() => {{ try {{ bridge.send({value}); }} catch (error) {{ return error.message; }} }}"
        )
    page.evaluate("bridge.send(null)")
    assert wait_for(page, "got.length === 1 && got") == [None]


def test_an_option_that_there_is_not_is_refused(page: Page) -> None:
    assert "no option maxRetrys" in page.evaluate(
        """() => {
            const bridge = new channels.WebSocketBridge({ maxRetrys: 1 });
            try { bridge.connect("/x"); } catch (error) { return error.message; }
        }"""
    )


def test_sending_before_connecting_says_what_to_do(page: Page) -> None:
    assert "call connect()" in page.evaluate(
        "() => { try { new channels.WebSocketBridge().send(1); } catch (error) { return error.message; } }"
    )


# -- the files -------------------------------------------------------------------------------------------------------


def test_the_module_has_the_classes_of_the_script(page: Page) -> None:
    assert page.evaluate(
        """async () => {
            const module = await import("/static/channels/js/websocketbridge.mjs");
            return [Object.keys(module).sort(), new module.WebSocketBridge() instanceof channels.WebSocketBridge];
        }"""
    ) == [["ReconnectingWebSocket", "WebSocketBridge"], True]


def test_the_files_are_found_at_both_places_and_have_the_version_of_the_project() -> None:
    assert (SCRIPTS.parents[2] / "js" / "websocketbridge.js").samefile(SCRIPTS / "websocketbridge.js")
    assert json.loads((SCRIPTS / "package.json").read_text())["version"] == procman.__version__


USE = """
import { WebSocketBridge, type Options } from "procman-channels";
const options: Options = { maxRetries: 3, shouldReconnect: (event) => event.code !== 4000 };
const bridge = new WebSocketBridge(options);
bridge.connect("/chat/", ["a", "b"]);
bridge.listen((message, stream) => { const nothing: null = stream; console.log(message.text, nothing); });
bridge.demultiplex("one", (payload, stream: string) => console.log(payload, stream));
const isKept: boolean = bridge.stream("one").send({ action: "create" });
bridge.socket?.addEventListener("close", (event) => console.log(event.code, isKept));
bridge.socket?.addEventListener("reconnecting", ({ detail }) => console.log(detail.attempt, detail.delay));
new channels.WebSocketBridge().close(4000, "bye");
"""


@pytest.mark.slow
def test_the_types_are_those_that_a_strict_compiler_wants(tmp_path: Path) -> None:
    if shutil.which("npx") is None and not os.environ.get("PROCMAN_TEST_ALL"):
        pytest.skip("npx is not installed")
    shutil.copytree(SCRIPTS, tmp_path / "node_modules" / "procman-channels")
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "misuse.ts").write_text(USE + "bridge.listen(3);\n")
    flags = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    compiler = ["npx", "--yes", "--package", "typescript@5", "tsc", *flags]

    def compile_file(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*compiler, name], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)

    good, bad = compile_file("use.ts"), compile_file("misuse.ts")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "misuse.ts(12," in bad.stdout, bad.stdout + bad.stderr

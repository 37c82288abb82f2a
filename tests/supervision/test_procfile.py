import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.errors import ConfigurationError
from procman.supervision.errors import ProcfileError
from procman.supervision.procfile import (
    READY_AFTER,
    build_types,
    conditions_for,
    parse_counts,
    parse_procfile,
    shell_command,
)

OWN = ("layer", "interface", "worker")
PHASES = {"interface": 0, "worker": 1, "layer": 2}


def parse(text: str | bytes) -> dict[str, str]:
    found = parse_procfile(text if isinstance(text, bytes) else text.encode(), "Procfile.dev", OWN)
    return {entry.name: entry.command for entry in found.entries}


def refusal(text: str | bytes) -> str:
    with pytest.raises(ProcfileError) as caught:
        parse(text)
    return str(caught.value)


def types_of(text: str, **counts: int) -> dict[str, object]:
    return {kind.name: kind for kind in build_types(parse_procfile(text.encode(), "P", OWN), counts, 8000, PHASES)}


def test_lines_comments_and_blanks() -> None:
    text = "\ufeff# tools\n\ncss: npm run watch -- --poll\r\n  \nmail-2:python -m aiosmtpd # no comment\nx_Y:\tsleep 1"
    assert parse(text) == {
        "css": "npm run watch -- --poll", "mail-2": "python -m aiosmtpd # no comment", "x_Y": "sleep 1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("css npm", "line 1: 'css npm' is no `name: command`"),
        ("a: x\n\nb c: y", "line 3: 'b c: y' is no `name: command`"),
        ("ä: x", "is no `name: command`"),
        ("a:", "line 1: 'a' has no command"),
        ("a: x\nb: y\na: z", "line 3: 'a' stands in line 1 already"),
        ("a: x\n<<<<<<< HEAD\nb: y", "line 2: it is a merge marker"),
        ("a: x\n=======\nb: y", "line 2: it is a merge marker"),
        (f"{'n' * 64}: x", "the name has 64 characters; at most 63"),
        ("worker: celery", "line 1: 'worker' is a process of channels-run itself"),
        ("system: x", "a process of channels-run itself"),
        (b"a: x\nb: \xff\n", "line 2: it is no UTF-8 text"),
        ("a: x\0y", "line 1: it holds a NUL byte"),
        ("# procman: twice\na: x", "line 1: there is no option 'twice'; there are once, needed, depends"),
        ("# procman: once=1\na: x", "write 'once' alone"),
        ("# procman: depends\na: x", "depends needs a value"),
        ("# procman: depends=b\na: x", "line 2: it depends on 'b'; there are a, layer, interface, worker"),
        ("# procman: depends=b:done\na: x\nb: y", "line 1: there is no condition 'done'; there are started, ready"),
        (
            "# procman: depends=b:completed\na: x\nb: y",
            "line 2: it waits for the end of 'b', which is not marked `once`",
        ),
        ("# procman: before=css\na: x\ncss: y", "line 2: before=css: only layer, interface, worker"),
        ("# procman: depends=worker before=worker\na: x", "both may wait for each other"),
        ("# procman: depends=b\na: x\n# procman: depends=a\nb: y", "these depend on each other: a -> b -> a"),
        ("# procman: ready-log=(\na: x", "ready-log is no regular expression"),
        ("# procman: ready-port=70000\na: x", "ready-port is '70000'; write a number from 1 to 65535, or PORT"),
        ("# procman: stop-signal=NONE\na: x", "there is no signal 'NONE'"),
        ("# procman: ready-log='\na: x", "the options cannot be read: No closing quotation"),
        ("a: x\n# procman: once", "a comment with options stands at the end"),
        ("a: x\n" + "#" * 1024 * 1024, "larger than 1048576 bytes"),
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(text: str | bytes, said: str) -> None:
    message = refusal(text)
    assert message.startswith("Procfile.dev line ") and said in message
    assert "\n" not in message and "\x00" not in message


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused_in_one_line(data: bytes) -> None:
    try:
        found = parse_procfile(data, "P", OWN)
    except ProcfileError as error:
        assert "\n" not in str(error)
    else:
        assert all(entry.command for entry in found.entries)


def test_lines_that_are_the_site_itself_are_left_out() -> None:
    text = (
        "release: python manage.py migrate\nweb: channels-run --port $PORT\nsite: /opt/bin/channels-run\n"
        "other: channels-run start\nworker: channels-run worker\nthumbs: channels-run worker --only-channels t.*\n"
        "shell: channels-runner --x\n"
    )
    found = parse_procfile(text.encode(), "P", OWN)
    assert [entry.name for entry in found.entries] == ["thumbs", "shell"]
    assert set(found.left_out) == {"release", "web", "site", "other", "worker"}
    assert found.describe()[0].startswith("P: runs thumbs, shell; leaves out release (platforms run it")
    assert types_of(text)["thumbs"].announces and not types_of(text)["shell"].announces  # type: ignore[attr-defined]


def test_ports_go_up_by_a_hundred_and_every_line_knows_those_of_the_others() -> None:
    kinds = types_of("web: channels-run\ncss: a\nmail-2: b")
    assert [(kind.name, kind.port) for kind in kinds.values()] == [("css", 8100), ("mail-2", 8200)]  # type: ignore[attr-defined]
    for kind in kinds.values():
        assert kind.env == {"PROCMAN_PORT_WEB": "8000", "PROCMAN_PORT_CSS": "8100", "PROCMAN_PORT_MAIL_2": "8200"}  # type: ignore[attr-defined]
    assert [kind.port for kind in types_of("css: a\nb: c", css=0).values()] == [8200]  # type: ignore[attr-defined]


def test_options_become_what_the_supervisor_knows() -> None:
    text = (
        "# procman: once before=worker\nmigrate: m\n"
        "# procman: needed depends=migrate,layer:started\n# procman: ready-log='compiled .*' stop-signal=INT\ncss: c\n"
        "# procman: depends=css:started ready-port=PORT\nlast: l\n"
    )
    kinds = types_of(text, css=2)
    migrate, css, last = kinds["migrate"], kinds["css"], kinds["last"]
    assert migrate.runs_once and migrate.is_optional and migrate.ready_after == READY_AFTER  # type: ignore[attr-defined]
    assert css.after == (("migrate", "completed_successfully"), ("layer", "started"))  # type: ignore[attr-defined]
    assert css.is_needed and not css.is_optional and css.count == 2 and css.ready_after is None  # type: ignore[attr-defined]
    assert css.ready_log == "compiled .*" and css.stop_signal == signal.SIGINT and css.signals_group  # type: ignore[attr-defined]
    assert last.ready_port == last.port == 8300 and last.after == (("css", "started"),)  # type: ignore[attr-defined]
    found = parse_procfile(text.encode(), "P", OWN)
    assert conditions_for(found, "worker") == (("migrate", "completed_successfully"),)
    assert conditions_for(found, "layer") == ()


def test_what_others_need_stops_after_them() -> None:
    text = (
        "# procman: before=layer\nredis: r\n# procman: depends=redis\nqueue: q\n# procman: depends=queue\nclock: c\n"
        "free: f\n"
    )
    phases = {name: kind.stop_phase for name, kind in types_of(text).items()}  # type: ignore[attr-defined]
    assert phases == {"redis": 3, "queue": 1, "clock": 0, "free": 0}


def test_counts() -> None:
    assert parse_counts("css=2, worker=4,", ["css", "worker"]) == {"css": 2, "worker": 4}
    assert parse_counts("", []) == {}
    for text, said in (
        ("css", "is no type=number"),
        ("css=-1", "is no type"),
        ("css=9999", "0 to 512"),
        ("x=1", "'x'"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            parse_counts(text, ["css"])


@pytest.mark.parametrize(
    ("command", "replaced"),
    [
        ("sleep 0 > /dev/null", True),
        ("A=1 B=x sleep 0", True),
        ("true && sleep 0", False),
        ("cd / && true", False),
        ("exec sleep 0", False),
        ("nosuchprogram x", False),
        ('A="x y" sleep 0', False),
    ],
)
def test_a_single_program_takes_the_place_of_its_shell(command: str, replaced: bool) -> None:
    words = shell_command(command, lambda name: f"/bin/{name}" if name in ("sleep", "true") else None)
    assert words[:2] == ["/bin/sh", "-c"]
    assert ("exec sleep" in words[2] and "trap" not in words[2]) == replaced
    assert words[2].endswith(command.split()[-1])


@pytest.mark.parametrize(
    ("command", "status", "printed"),
    [
        ("FOO=bar sh -c 'echo $FOO; exit 3'", 3, "bar"),
        ("echo a; echo b", 0, "a b"),
        ("false || echo c", 0, "c"),
        ("nosuchprogram", 127, ""),
        ("echo 'quoted; text' \"$HOME_OF_NOBODY\"", 0, "quoted; text"),
    ],
)
def test_commands_run_as_in_a_shell(command: str, status: int, printed: str, tmp_path: Path) -> None:
    done = subprocess.run(shell_command(command), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == status
    assert done.stdout.split() == printed.split()

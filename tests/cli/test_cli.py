import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import procman
from procman import cli
from procman.errors import ConfigurationError


def run(*words: str) -> str:
    done = CliRunner().invoke(cli.cli, words, prog_name="channels-run")
    assert done.exit_code == 0, done.output
    return done.output


def test_the_version_is_printed() -> None:
    assert run("--version") == f"channels-run, version {procman.__version__}\n"


def test_the_help_shows_examples_and_every_command() -> None:
    text = run("--help")
    assert "channels-run --port 9000" in text
    for name in ("start", "status", "new", "interface", "worker", "layer"):
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", ["start", "status", "new", "interface", "worker", "layer"])
def test_each_command_has_help_for_each_option(name: str) -> None:
    text = run(name, "--help")
    command = cli.cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None and command.help
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name  # type: ignore[attr-defined]
            assert parameter.opts[0] in text


def test_words_that_begin_with_an_option_belong_to_start() -> None:
    done = CliRunner().invoke(cli.cli, ["--port", "x"], prog_name="channels-run")
    assert done.exit_code == 2
    assert "Usage: channels-run start" in done.output and "'--port'" in done.output


def test_an_unknown_command_is_refused() -> None:
    done = CliRunner().invoke(cli.cli, ["strat"], prog_name="channels-run")
    assert done.exit_code == 2 and "No such command 'strat'" in done.output


def fails_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception) -> str:
    def broken(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "cli", broken)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_an_error_is_one_line_even_if_its_text_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = fails_with(monkeypatch, capsys, ConfigurationError("first\nsecond"))
    assert text == "channels-run: error: first second\n"


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cli, "IS_WINDOWS", True)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code == 2
    assert "Windows is not supported" in capsys.readouterr().err


def test_the_exit_statuses_are_documented_and_agree_with_the_supervisors() -> None:
    from procman.cli import exits
    from procman.supervision import states

    assert (exits.OK, exits.NEVER_READY, exits.CRASH_LOOP, exits.FORCED, exits.OUTPUT_CLOSED) == (
        states.STOPPED_BY_REQUEST, states.NEVER_READY, states.CRASH_LOOP, states.FORCED, states.OUTPUT_CLOSED
    )  # fmt: skip
    numbers = {value for name, value in vars(exits).items() if name.isupper()}
    documented = {int(line.split()[0]) for line in (exits.__doc__ or "").splitlines() if line[:1].isdigit()}
    assert numbers == documented


def test_importing_the_commands_does_not_import_django_or_the_event_loop() -> None:
    import subprocess
    import sys

    code = (
        "import sys, procman.cli, procman.cli.start, procman.cli.status, procman.cli.worker, procman.cli.new; "
        "sys.exit(any(name in sys.modules for name in ('django', 'asyncio', 'httptools', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_streams_that_the_caller_has_closed_are_open_again() -> None:
    code = (
        "import os, sys; from procman import cli; cli._open_standard_streams(); "
        "print(sys.stdin.read(), sys.stdout.isatty(), sys.stderr.isatty()); "
        "sys.exit(not os.path.samestat(os.fstat(1), os.stat(os.devnull)))"
    )
    done = subprocess.run(["/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode == 0

import dataclasses
from typing import Any

import click
import pytest
from click.testing import CliRunner

from procman.cli.options import flag_name, pick, settings_options, to_arguments
from procman.settings import InterfaceSettings, SupervisorSettings, WorkerSettings


def command(settings: type, **options: Any) -> tuple[click.Command, dict[str, Any]]:
    """A command with the options of *settings*, and the values it was called with."""
    seen: dict[str, Any] = {}

    @click.command()
    @settings_options(settings, **options)
    def call(**values: Any) -> None:
        seen.update(values)

    return call, seen


@pytest.mark.parametrize("settings", [InterfaceSettings, SupervisorSettings, WorkerSettings])
def test_every_field_is_an_option_whose_help_names_its_default(settings: Any) -> None:
    made, _ = command(settings)
    assert [parameter.name for parameter in made.params] == [field.name for field in dataclasses.fields(settings)]
    text = " ".join(CliRunner().invoke(made, ["--help"], terminal_width=200).output.split())
    for field in dataclasses.fields(settings):
        assert flag_name(field.name) in text
        if not isinstance(field.default, bool) and field.default != "":
            assert "[default:" in text
    if settings is InterfaceSettings:
        assert "[default: 104857600 bytes]" in text and "--access-log / --no-access-log" in text


def test_options_that_are_not_given_are_none() -> None:
    made, seen = command(InterfaceSettings)
    assert CliRunner().invoke(made, []).exit_code == 0
    assert set(seen.values()) == {None}


def test_only_the_named_fields_are_options() -> None:
    made, _ = command(SupervisorSettings, only=("bind", "port"))
    assert [parameter.name for parameter in made.params] == ["bind", "port"]


def test_ranges_are_those_of_the_field() -> None:
    made, _ = command(SupervisorSettings)
    for words in (["--port", "65536"], ["-w", "0"], ["--startup-timeout", "0.5"]):
        done = CliRunner().invoke(made, words)
        assert done.exit_code == 2 and "is not in the range" in done.output


def test_values_given_to_one_command_reach_another_unchanged() -> None:
    made, seen = command(InterfaceSettings)
    words = ["--max-body-size", "5", "--no-access-log", "--ping-interval", "0.5", "--root-path", "/x y"]
    assert CliRunner().invoke(made, words).exit_code == 0
    again = to_arguments(InterfaceSettings, seen)
    first = dict(seen)
    seen.clear()
    assert CliRunner().invoke(made, again).exit_code == 0
    assert seen == first
    assert pick(InterfaceSettings, seen) == {
        "max_body_size": 5, "access_log": False, "ping_interval": 0.5, "root_path": "/x y"
    }  # fmt: skip

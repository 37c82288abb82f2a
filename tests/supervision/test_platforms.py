import pytest

from procman.errors import ConfigurationError
from procman.supervision.platforms import NAMES, find_platform


def recognise(environ: dict[str, str], *files: str) -> str:
    found = find_platform("auto", environ, lambda path: path in files)
    return found.name if found is not None else ""


@pytest.mark.parametrize(
    ("environ", "files", "name"),
    [
        ({"DYNO": "web.1", "PORT": "1"}, ("/.dockerenv",), "heroku"),
        ({"DYNO_RAM": "512"}, (), ""),
        ({"RENDER": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), "render"),
        ({"FLY_APP_NAME": "site"}, (), "fly"),
        ({"RAILWAY_ENVIRONMENT_NAME": "production"}, ("/.dockerenv",), "railway"),
        ({"DOKKU_APP_NAME": "site"}, ("/.dockerenv",), "dokku"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ("/.dockerenv",), "kubernetes"),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, (), "systemd"),
        ({"INVOCATION_ID": "a shell below a service"}, (), ""),
        ({}, ("/.dockerenv",), "docker"),
        ({}, ("/run/.containerenv",), "docker"),
        ({"HOME": "/root"}, (), ""),
    ],
)
def test_platforms_are_recognised(environ: dict[str, str], files: tuple[str, ...], name: str) -> None:
    assert recognise(environ, *files) == name
    assert find_platform("none", environ, lambda path: path in files) is None


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_chosen_and_says_so(name: str) -> None:
    found = find_platform(name, {}, lambda path: False)
    assert found is not None and found.name == name
    text = found.describe()
    assert text.startswith(f"platform {name} (--platform {name})") and text.endswith(
        "--platform none switches this off"
    )
    # The platform kills what still runs after its own budget.
    budget = {"fly": 5, "railway": 3, "docker": 10}.get(name, 30)
    timeout = found.defaults.get("shutdown_timeout", 10)
    assert isinstance(timeout, float | int) and timeout < budget


def test_an_unknown_one() -> None:
    with pytest.raises(ConfigurationError, match="no platform 'aws'; there are heroku, render"):
        find_platform("aws", {}, lambda path: False)


def test_a_stop_on_railway_takes_as_long_as_was_configured_there() -> None:
    for seconds, timeout in (("20", 19.0), ("2", 2.5), ("x", 2.5)):
        found = find_platform("railway", {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": seconds}, lambda path: False)
        assert found is not None and found.defaults["shutdown_timeout"] == timeout
        assert bool(found.notes) == (timeout == 2.5)

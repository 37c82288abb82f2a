"""What a project's own process tells of it, run as the command line runs it."""

import json
import os
import subprocess
import sys

import pytest

from procman.layers.ipc import address

pytestmark = pytest.mark.slow

SETTINGS = """
SECRET_KEY = "x"
DEBUG = True
ALLOWED_HOSTS = ["example.com"]
ROOT_URLCONF = "site1.urls"
INSTALLED_APPS = ["procman.channels"]
print("noise on stdout")
"""


@pytest.fixture
def project(tmp_path):
    """Writes files of a project and returns what describe says of it."""
    (tmp_path / "site1").mkdir()

    def write(environ=None, **files):
        contents = {"__init__": "", "settings": SETTINGS, "urls": "urlpatterns = []", "routing": "routes = []", **files}
        for name, text in contents.items():
            (tmp_path / "site1" / f"{name}.py").write_text(text)
        read, end = os.pipe()
        variables = {name: value for name, value in os.environ.items() if name != "PROCMAN_LAYER"}
        variables |= {"DJANGO_SETTINGS_MODULE": "site1.settings", **(environ or {})}
        variables = {name: value for name, value in variables.items() if value is not None}
        variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.getcwd()])  # noqa: PTH109
        try:
            done = subprocess.run(
                [sys.executable, "-m", "procman.channels.describe", str(end)],
                pass_fds=[end], cwd=tmp_path, env=variables, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        finally:
            os.close(end)
        with os.fdopen(read) as pipe:
            answer = json.loads(pipe.read())
        assert done.returncode == (0 if "project" in answer else 2), done.stderr
        return answer

    write.path = tmp_path
    return write


def layers(config):
    return SETTINGS + f"\nCHANNEL_LAYERS = {{'default': {config}}}\n"


def test_a_project_without_any_setting_of_ours_is_described(project):
    settings_file = project.path / "site1" / "settings.py"
    assert project() == {
        "project": {
            "settings_module": "site1.settings",
            "layer": address.project_address(settings_file),
            "layer_config": {},
            "allowed_hosts": ["example.com"],
            "debug": True,
            "ws_protocols": [],
            "slow_readers": {},
            "static_url": "",
            "static_roots": [],
        }
    }


@pytest.mark.parametrize(
    ("backend", "config", "environ", "layer"),
    [
        ("ipc.IPCChannelLayer", {"address": "ipc:///tmp/x.sock"}, {}, "ipc:///tmp/x.sock"),
        ("ipc.IPCChannelLayer", {}, {"PROCMAN_LAYER": "ipc:///tmp/y.sock"}, "ipc:///tmp/y.sock"),
        ("memory.InMemoryChannelLayer", {"capacity": 5}, {}, "memory://"),
    ],
)
def test_the_layers_address_and_config_are_told(project, backend, config, environ, layer):
    text = layers({"BACKEND": f"procman.layers.{backend}", "ROUTING": "site1.routing.routes", "CONFIG": config})
    found = project(environ, settings=text)["project"]
    assert (found["layer"], found["layer_config"]) == (layer, config)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"settings": "import no_such_module"},
            ["site1.settings", "No module named 'no_such_module'", "settings.py:1"],
        ),
        ({"settings": "x = 1\ndef broken(:\n"}, ["settings.py:2", "SyntaxError"]),
        ({"settings": "raise SystemExit('stop')"}, ["SystemExit", "stop"]),
        ({"settings": SETTINGS.replace('"procman.channels"', '"no_such_app"')}, ["INSTALLED_APPS", "no_such_app"]),
        ({"settings": SETTINGS.replace('SECRET_KEY = "x"', 'SECRET_KEY = ""')}, ["SECRET_KEY"]),
        ({"settings": SETTINGS + "\nMIDDLEWARE = ['no_such.Middleware']\n"}, ["MIDDLEWARE", "no_such"]),
        (
            {
                "settings": layers(
                    {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": [], "CONFIG": {"expirey": 3}}
                )
            },
            ["CONFIG", "expirey"],
        ),
        (
            {
                "settings": layers(
                    {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": "site1.routing.routes"}
                ),
                "routing": "from procman.channels import route\nroutes = [route('websocket connect', print)]",
            },
            ["ROUTING", "websocket connect", "routing.py:2"],
        ),
        ({"urls": "urlpatterns = [\n"}, ["ROOT_URLCONF 'site1.urls'", "urls.py:1"]),
        ({"urls": "import no_such_module"}, ["ROOT_URLCONF", "no_such_module", "urls.py:1"]),
        ({"settings": layers({})}, ["no BACKEND"]),
        ({"settings": layers({"BACKEND": "procman.layers.ipc.IPCChannelLayer"})}, ["no ROUTING"]),
        (
            {"settings": layers({"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": "site1.routing.no_such"})},
            ["site1.routing.no_such", "no attribute 'no_such'"],
        ),
        (
            {
                "settings": layers(
                    {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": "site1.routing.routes"}
                ),
                "routing": "import no_such_module",
            },
            ["site1.routing.routes", "cannot import module 'site1.routing'", "no_such_module", "routing.py:1"],
        ),
        (
            {"settings": layers({"BACKEND": "asgi_redis.RedisChannelLayer", "ROUTING": []})},
            ["asgi_redis", "procman.layers.redis.RedisChannelLayer"],
        ),
        ({"settings": layers({"BACKEND": "collections.OrderedDict", "ROUTING": []})}, ["no layer", "IPCChannelLayer"]),
        ({"settings": SETTINGS + "CHANNEL_LAYERS = {}"}, ["no layer 'default'"]),
    ],
)
def test_what_is_wrong_is_told_in_one_line(project, files, words):
    answer = project(**files)
    assert "\n" not in answer["error"]
    assert "<frozen" not in answer["error"]
    for word in words:
        assert word in answer["error"]


def test_without_a_settings_module_it_says_so(project):
    assert "DJANGO_SETTINGS_MODULE is not set" in project({"DJANGO_SETTINGS_MODULE": None})["error"]


def test_the_sub_protocols_are_told(project):
    told = project(settings=SETTINGS + "CHANNELS_WS_PROTOCOLS = ('v2', 'v1')")["project"]
    assert told["ws_protocols"] == ["v2", "v1"]


@pytest.mark.parametrize("value", ["'v1'", "['no token']", "[1]"])
def test_sub_protocols_that_are_no_list_of_names_are_refused_in_one_line(project, value):
    error = project(settings=SETTINGS + f"CHANNELS_WS_PROTOCOLS = {value}")["error"]
    assert error.startswith("CHANNELS_WS_PROTOCOLS is") and "\n" not in error


def test_what_happens_to_slow_readers_is_told(project):
    value = {"ticker.*": "latest-only", "*": "disconnect"}
    assert project(settings=SETTINGS + f"CHANNELS_SLOW_READERS = {value}")["project"]["slow_readers"] == value


@pytest.mark.parametrize("value", ["'latest-only'", "{'a': 'drop'}", "{1: 'disconnect'}", "{'a': []}"])
def test_a_policy_for_slow_readers_that_is_none_is_refused_in_one_line(project, value):
    error = project(settings=SETTINGS + f"CHANNELS_SLOW_READERS = {value}")["error"]
    assert error.startswith("CHANNELS_SLOW_READERS is") and "latest-only" in error and "\n" not in error


def test_without_debug_static_files_are_those_that_were_collected(project):
    settings = (
        SETTINGS.replace("DEBUG = True", "DEBUG = False") + "STATIC_URL = '/static/'\nSTATIC_ROOT = '/srv/static'\n"
    )
    told = project(settings=settings)["project"]
    assert (told["static_url"], told["static_roots"]) == ("/static/", [["", "/srv/static"]])
    told = project(settings=settings.replace("STATIC_ROOT", "OTHER"))["project"]
    assert told["static_roots"] == []


def test_with_debug_static_files_are_where_djangos_finders_look(project):
    apps = "INSTALLED_APPS = ['django.contrib.staticfiles', 'django.contrib.admin', 'django.contrib.contenttypes', "
    apps += "'django.contrib.auth', 'procman.channels']\n"
    settings = SETTINGS + apps + "STATIC_URL = '/static/'\nSTATICFILES_DIRS = [('more', '/srv/more'), '/srv/plain']\n"
    roots = project(settings=settings)["project"]["static_roots"]
    assert roots[:2] == [["more", "/srv/more"], ["", "/srv/plain"]]
    assert any(root.endswith("admin/static") for _, root in roots)
    own = (
        settings
        + "STATICFILES_FINDERS = ['django.contrib.staticfiles.finders.DefaultStorageFinder']\nMEDIA_ROOT = '/srv'\n"
    )
    assert project(settings=own)["project"]["static_roots"] == []


@pytest.mark.parametrize("url", ["https://cdn.example.com/", "//cdn.example.com/static/"])
def test_static_files_that_are_elsewhere_are_nobodys_here(project, url):
    told = project(settings=SETTINGS + f"STATIC_URL = '{url}'\nSTATIC_ROOT = '/srv/static'\n")["project"]
    assert (told["static_url"], told["static_roots"]) == ("", [])

"""The README's chat, taken from the README, in a project made by Django's own command."""

import re
import subprocess
import sys
from pathlib import Path

from websockets.sync.client import connect

from tests.support.processes import running_site

README = Path(__file__).parents[2] / "README.md"


def python_blocks() -> dict[str, str]:
    """File name in the first line of a listing -> the listing."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", README.read_text(), re.S)
    return dict(blocks)


def test_the_readmes_chat_works_as_it_is_written(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)], check=True)
    blocks = python_blocks()
    (tmp_path / "mysite" / "consumers.py").write_text(blocks["mysite/consumers.py"])
    settings = tmp_path / "mysite" / "settings.py"
    # The listing shows where a line goes in a list that exists already; the dots stand for its other entries.
    apps, _, rest = blocks["mysite/settings.py"].partition("\n")
    first = re.fullmatch(r'INSTALLED_APPS = \["([\w.]+)", \.\.\.\]', apps)
    assert first is not None
    settings.write_text(settings.read_text() + f'\nINSTALLED_APPS.insert(0, "{first[1]}")\n' + rest)
    subprocess.run([sys.executable, "manage.py", "check"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "mysite" / "tests.py").write_text(blocks["mysite/tests.py"])
    own = subprocess.run(
        [sys.executable, "manage.py", "test"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert own.returncode == 0 and "Ran 1 test" in own.stderr, own.stderr
    with running_site(tmp_path, "--workers", "2") as site:
        with (
            connect(f"{site.ws_url}/chat/lobby/") as ann,
            connect(f"{site.ws_url}/chat/lobby/") as bob,
            connect(f"{site.ws_url}/chat/elsewhere/") as other,
        ):
            ann.send("hello")
            assert ann.recv(10) == bob.recv(10) == "AnonymousUser: hello"
            other.send("anybody?")
            assert other.recv(10) == "AnonymousUser: anybody?"
            code = "from procman.channels import Group; Group('chat-lobby').send({'text': 'from a shell'})"
            command = [sys.executable, "manage.py", "shell", "-c", code]
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
            assert ann.recv(10) == bob.recv(10) == "from a shell"


def test_the_chat_is_as_short_as_the_readme_says() -> None:
    listing = python_blocks()["mysite/consumers.py"]
    assert len([line for line in listing.splitlines() if line.strip()]) <= 20

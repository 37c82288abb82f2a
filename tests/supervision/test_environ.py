import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procman.errors import ConfigurationError
from procman.supervision.environ import load_env_file


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The environment of this process, as it was afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def load(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    load_env_file(path)


def test_the_rules_of_python_dotenv(tmp_path: Path) -> None:
    os.environ["SET_BEFORE"] = "stays"
    load(
        tmp_path / ".env",
        '\ufeff# comment\nA=1\nexport B=\'two words\'  # comment\nC="line\\nbreak"\nD="over\ntwo lines"\n'
        "SET_BEFORE=other\nE=${SET_BEFORE}-${A}\nF='${A}'\nG=a#b\nH=\nÜ=1\n",
    )
    assert [os.environ[name] for name in "ABC"] == ["1", "two words", "line\nbreak"]
    assert os.environ["D"] == "over\ntwo lines" and os.environ["SET_BEFORE"] == "stays"
    assert os.environ["E"] == "stays-1" and os.environ["G"] == "a#b" and os.environ["H"] == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\n\n=x\n", "line 3: write NAME=value"),
        ('A=1\nB="open\n', "line 2: write NAME=value"),
        (b"A=1\nB=\xff\n", "line 2: it is no UTF-8 text"),
        ("A=1\nB=\0\n", "line 2: it holds a NUL byte"),
        ("A=" + "x" * 1024 * 1024, "is larger than"),
    ],
)
def test_a_wrong_file_names_its_line_and_sets_nothing(tmp_path: Path, text: str | bytes, said: str) -> None:
    before = dict(os.environ)
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path / "x.env", text)
    assert dict(os.environ) == before


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=said):
            load_env_file(path)

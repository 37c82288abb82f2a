"""The directions in which packages may import each other, and the doors to third-party libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "procman"
FOUNDATIONS = {"errors", "clock", "settings", "importing", "log", "lifetime", "forking"}
PACKAGES = {"layers", "interface", "channels", "supervision", "cli"}

# Package -> packages of ours that it may import; every one may import the foundations.
ALLOWED = {
    "foundations": set(),
    "layers": set(),
    "interface": {"layers"},
    "channels": {"layers"},
    "supervision": set(),
    "cli": {"layers", "interface", "channels", "supervision"},
}
# Files that put a whole site together, and what they may import beyond that.
OPEN_DOORS = {
    "channels/management/commands/_server.py": {"interface"},
    "channels/test/liveserver.py": {"interface"},
}
# Library -> the only files that may import it ("package/" means everything below it).
DOORS = {
    "django": ("channels/", "cli/new.py"),
    "msgpack": ("layers/codec.py",),
    "httptools": ("interface/request.py",),
    "prometheus_client": ("interface/metrics.py",),
    "websockets": ("interface/frames.py", "interface/handshake.py"),
    "whitenoise": ("interface/static.py",),
    "uvloop": ("layers/ipc/server.py", "interface/server.py"),
    "cryptography": ("layers/redis/crypto.py",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "redis": ("layers/redis/",),
    "hiredis": ("layers/redis/",),
    "psutil": ("supervision/usage.py",),
    "dotenv": ("supervision/environ.py",),
    "watchfiles": ("cli/reloader.py",),
}
ASYNCIO = (
    "layers/ipc/aio.py",
    "layers/ipc/aio_connection.py",
    "layers/ipc/embedded.py",
    "layers/ipc/server.py",
    "layers/redis/",
    "layers/memory_aio.py",
    "interface/",
    "supervision/",
    "channels/handler.py",
)


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "app_template" not in path.parts)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module's dotted name, and whether the import stands at the top of the module."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            names = [node.module or ""]
            if node.module == "procman" or (node.module or "").startswith("procman."):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node in tree.body


def place(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_in_the_allowed_directions(path: Path) -> None:
    here = place(path)
    if here in ("__init__", "__main__"):
        return
    opened = OPEN_DOORS.get(path.relative_to(ROOT).as_posix(), set())
    allowed = ALLOWED["foundations" if here in FOUNDATIONS else here] | FOUNDATIONS | {here} | opened
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] == "procman" and len(parts) > 1 and parts[1] in FOUNDATIONS | PACKAGES:
            assert parts[1] in allowed, f"{here} must not import {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_are_imported_only_at_their_doors(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    for name, _ in imports(path):
        doors = DOORS.get(name.split(".")[0])
        if doors is not None:
            assert relative.startswith(doors), f"{relative} must not import {name}"
        if name.split(".")[0] == "asyncio":
            assert relative.startswith(ASYNCIO), f"{relative} must not import asyncio"


def test_the_import_graph_has_no_cycle() -> None:
    names = {
        ".".join(("procman", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in modules()
    }
    graph = {}
    for module, path in names.items():
        targets = {name for name, at_top in imports(path) if at_top and name in names}
        # `from package import submodule` depends on the submodule; the package itself is only its container.
        graph[module] = {t for t in targets if t != module and not any(o.startswith(t + ".") for o in targets)}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "import cycle: " + " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize(
    "module",
    ["procman.interface.server", "procman.supervision.engine", "procman.layers.ipc.server", "procman.cli"],
)
def test_processes_without_the_project_never_load_django(module: str) -> None:
    code = f"import sys, {module}; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

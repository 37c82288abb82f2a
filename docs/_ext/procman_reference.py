"""Directives that make the reference from the code: settings, commands and public modules, never typed by hand.

``all-settings::`` has a table for each dataclass of ``procman.settings``; ``all-metrics::`` lists what Prometheus gets; ``all-commands::`` shows the help of each
subcommand of ``channels-run``; ``public-modules::`` documents every module of ``procman.channels`` that is not the
machinery of another.
"""

from __future__ import annotations

import dataclasses
import pkgutil
import re
import sys
from typing import Any

import click
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains import Domain
from sphinx.util.docutils import SphinxDirective

from procman import channels, settings
from procman.cli import cli
from procman.cli.options import flag_name
from procman.interface.metrics import COUNTER, METRICS

# Modules of ``procman.channels`` that users never import: parts of a worker, and what Django itself finds.
INTERNAL = re.compile(
    r"procman\.channels\.(\w+\.)*(apps|checks|claims|consuming|describe|development|failures|keeper|management"
    r"|migrations|pending|socketsession|tests|tied|_\w+)(\.|$)"
)


def settings_classes() -> list[type]:
    """Every dataclass of ``procman.settings`` whose fields are flags."""
    found = vars(settings).values()
    return [
        each
        for each in found
        if isinstance(each, type) and dataclasses.is_dataclass(each) and each.__name__.endswith("Settings")
    ]


def command_names() -> list[str]:
    """Names of the subcommands of ``channels-run``, in the order of its help."""
    return cli.list_commands(click.Context(cli))


def command_help(name: str) -> str:
    """What ``channels-run NAME --help`` prints, 88 columns wide."""
    parent = click.Context(cli, info_name="channels-run", max_content_width=88, terminal_width=88)
    command = cli.get_command(parent, name)
    assert command is not None, name
    with click.Context(command, info_name=name, parent=parent, max_content_width=88, terminal_width=88) as context:
        return re.sub(
            r"(\[default: )\d+( *;\s+environment: WEB_CONCURRENCY)", r"\1processors\2", command.get_help(context)
        )


def public_modules() -> list[str]:
    """Dotted names of the modules whose names users import."""
    walked = pkgutil.walk_packages(channels.__path__, f"{channels.__name__}.")
    names = [channels.__name__, *(module.name for module in walked)]
    return sorted(name for name in names if not INTERNAL.match(name))


def default_text(field: dataclasses.Field[Any]) -> str:
    """A default as people write it: MiB for round sizes, units, words for switches."""
    value, unit = field.default, field.metadata["unit"]
    if field.name == "workers":
        return "processors, at least 2"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value == "":
        return "empty"
    if unit == "bytes" and value and value % (512 * 1024) == 0:
        return f"{value / settings.MIB:g} MiB"
    number = f"{value:,g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return f"{number} {unit}".strip() if field.name != "port" else str(value)


def settings_table(each: type) -> list[str]:
    """A section for the settings class *each*, as reStructuredText: flag, default, environment, meaning."""
    title = (each.__doc__ or "").splitlines()[0].split(". ")[0].rstrip(".")
    lines = [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1", "   :widths: 30 18 52", ""]
    lines += ["   * - Flag", "     - Default", "     - Meaning"]
    for field in dataclasses.fields(each):
        flag = flag_name(field.name)
        shown = f"``{flag}``" + (f", ``--no-{flag[2:]}``" if isinstance(field.default, bool) else "")
        variable = field.metadata["env"]
        environment = f" Environment: ``{variable}``." if variable else ""
        lines += [f"   * - {shown}", f"     - {default_text(field)}", f"     - {field.metadata['help']}{environment}"]
    return [*lines, ""]


def command_section(name: str) -> list[str]:
    """A section with the help of the subcommand *name*, as reStructuredText."""
    title = f"channels-run {name}"
    text = (f"   {line}".rstrip() for line in command_help(name).splitlines())
    return [title, "-" * len(title), "", ".. code-block:: text", "", *text, ""]


def metrics_table() -> list[str]:
    """A table of all metrics, as reStructuredText: name as Prometheus has it, type, label, meaning."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 40 12 12 36", ""]
    lines += ["   * - Name", "     - Type", "     - Label", "     - Meaning"]
    for each in METRICS:
        name = f"{each.name}_total" if each.kind == COUNTER else each.name
        lines += [f"   * - ``{name}``", f"     - {each.kind}", f"     - {each.label}".rstrip(), f"     - {each.help}"]
    return [*lines, ""]


def module_section(name: str) -> list[str]:
    """A section for the module *name*, as reStructuredText."""
    options = ["   :no-members:"] if name == channels.__name__ else []  # its names are documented where they are made
    return [f"``{name}``", "-" * (len(name) + 4), "", f".. automodule:: {name}", *options, ""]


class Generated(SphinxDirective):
    """Sections that ``write`` makes, at the level of the directive."""

    def write(self) -> list[str]:
        """Lines of reStructuredText."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The parsed sections."""
        lines = StringList(self.write(), f"<{self.name}>")
        holder = nodes.section()
        self.state.nested_parse(lines, self.content_offset, holder, match_titles=True)
        return holder.children


class AllSettings(Generated):
    """``all-settings::``: one table per settings class."""

    def write(self) -> list[str]:
        """Lines of reStructuredText."""
        return [line for each in settings_classes() for line in settings_table(each)]


class AllCommands(Generated):
    """``all-commands::``: the help of each subcommand."""

    def write(self) -> list[str]:
        """Lines of reStructuredText."""
        return [line for name in command_names() for line in command_section(name)]


class AllMetrics(Generated):
    """``all-metrics::``: one table of them."""

    def write(self) -> list[str]:
        """Lines of reStructuredText."""
        return metrics_table()


class PublicModules(Generated):
    """``public-modules::``: a section for each public module, from its docstrings."""

    def write(self) -> list[str]:
        """Lines of reStructuredText."""
        return [line for name in public_modules() for line in module_section(name)]


def is_no_class(app: Sphinx, domain: Domain, node: pending_xref) -> bool | None:
    """True, so that Sphinx keeps silent, for a type in a signature that is a type variable or an alias."""
    module, _, name = str(node.get("reftarget", "")).rpartition(".")
    if node.get("reftype") != "class" or module not in sys.modules:
        return None
    found = getattr(sys.modules[module], name, None)
    return True if found is not None and not isinstance(found, type) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives to *app*."""
    app.add_directive("all-settings", AllSettings)
    app.add_directive("all-commands", AllCommands)
    app.add_directive("all-metrics", AllMetrics)
    app.add_directive("public-modules", PublicModules)
    app.connect("warn-missing-reference", is_no_class)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

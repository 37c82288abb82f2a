"""Sphinx configuration: a Django project is set up, so that every public module can be imported and documented."""

import importlib.util
import sys
from pathlib import Path

import django
from django.conf import settings

import procman

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

INSTALLED_APPS = ["procman.channels", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
if importlib.util.find_spec("procman.channels.delay"):
    INSTALLED_APPS.append("procman.channels.delay")
settings.configure(INSTALLED_APPS=INSTALLED_APPS, SECRET_KEY="documentation")
django.setup()

project = "procman"
author = "the procman contributors"
version = release = procman.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "procman_reference"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

html_theme = "furo"
html_title = f"procman {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "ignore-module-all": True}
# Types stay in the signature, where they are short; what they name outside of procman is not linked: no network.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# Links into the documented package must be right. Other rooms and libraries are named, not linked.
nitpick_ignore_regex = [("py:.*", r"(?!procman\.channels\.).*")]
napoleon_google_docstring = True
napoleon_numpy_docstring = False

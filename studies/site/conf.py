"""Configuration of the documentation: ``nox -s docs`` builds it, without a network."""

import os
import sys
import warnings
from pathlib import Path

import matplotlib

SITE = Path(__file__).parent
sys.path.insert(0, str(SITE))

import generate  # noqa: E402 - stands beside this file
import terms  # noqa: E402
import typeset  # noqa: E402

import dlnds as dl  # noqa: E402

matplotlib.use("agg")
os.environ.pop("MPLBACKEND", None)  # pages are run by kernels that show their pictures themselves
# These modules are public by shorter names than those that they are imported by.
sys.modules.update({f"dlnds.{name}": getattr(dl, name) for name in ("events", "losses")})

project, author, language = "dlnds", "The dlnds developers", "en"
version = release = dl.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "notation.md",
    "benchmarks.md",
    "generated/whole",
    "gallery/*.py",
    "gallery/*.ipynb",
    "gallery/*.zip",
    "**/*.md5",
]
default_role = "py:obj"
nitpicky = False

# Pages in Markdown; their code runs while the site is built, and an error ends the build.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_ipywidgets_js = {}
suppress_warnings = ["mystnb.unknown_mime_type"]

# One page for each public name.
autosummary_generate = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
numpydoc_show_class_members = True
numpydoc_show_inherited_class_members = True
numpydoc_class_members_toctree = False
numpydoc_citation_re = r"[A-Z]{2,4}\d{2}"


sphinx_gallery_conf = {
    "examples_dirs": [str(SITE.parent)],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "reset_argv": "generate.quick",
    "first_notebook_cell": generate.FIRST_CELL,
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("dlnds",),
    "reference_url": {"dlnds": None},
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "within_subsection_order": "generate.place_of_study",
    "copyfile_regex": r"(?!)",
    "remove_config_comments": True,
}
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")

html_theme = "pydata_sphinx_theme"
html_title = f"dlnds {release}"
html_static_path = ["_static"]
html_extra_path = ["generated/whole"]  # pages that are no part of the manual's frame
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "The dlnds developers, MIT licence"  # noqa: A001 - the name that Sphinx reads


# Pages that stand by themselves have nothing to list beside them.
html_sidebars = {page.stem: [] for page in SITE.glob("*.md")} | {
    f"generated/{name}": [] for name in ("files", "theory", "literature", "benchmarks")
}


def glossary(app: object, page: str, source: list[str]) -> None:
    """Make the glossary one that Sphinx can link to."""
    if page == "glossary":
        source[0] = terms.as_directive(source[0])


def setup(app: object) -> None:
    """Write the pages that are made of the package itself, set indices low, and link terms."""
    app.add_post_transform(typeset.Typeset)
    app.add_transform(typeset.Terms)
    app.connect("source-read", glossary)
    generate.write(SITE)
    app.connect("source-read", generate.link_names)
    app.connect("source-read", generate.prepare_study)
    app.connect("autodoc-process-signature", generate.as_written)
    app.connect("autodoc-process-docstring", generate.mark_up, priority=400)

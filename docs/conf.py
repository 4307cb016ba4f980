"""How Sphinx makes the site: bash run_scripts/docs.sh."""

from sphinx.application import Sphinx

from petsc_dcdm import __version__

project = "petsc_dcdm"
copyright = "The petsc_dcdm developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "petsc_dcdm"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False


def setup(app: Sphinx) -> None:
    """The page that includes CONTRIBUTING.md links to the one that includes CHANGELOG.md."""

    def relink(app: Sphinx, path: object, page: str, content: list[str]) -> None:
        content[0] = content[0].replace("](CHANGELOG.md)", "](changelog.md)")

    app.connect("include-read", relink)

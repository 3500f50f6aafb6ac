"""Rules of the house that a reviewer should not have to check."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import attnprobe
from attnprobe import plugins
from attnprobe.errors import AttnprobeError

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "attnprobe").rglob("*.py"))
CONSTANTS = {
    "attnprobe.attention.families": "VARIANTS",
    "attnprobe.claims": "CLAIM",
    "attnprobe.cli": "command",
    "attnprobe.exports": "EXPORT",
    "attnprobe.formats.releases": "FORMATS",
    "attnprobe.metrics": "METRIC",
    "attnprobe.objectives": "OBJECTIVE",
    "attnprobe.plots": "PLOT",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250, "split the module"
    for node in ast.walk(ast.parse(text)):
        # what Triton compiles has neither keyword-only arguments nor functions to call
        if isinstance(node, ast.FunctionDef) and not path.name.startswith("_programs"):
            positional = len(node.args.posonlyargs) + len(node.args.args)
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno - body[0].lineno + 1) if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"
            assert positional <= 6, f"{node.name} takes {positional} positional arguments"
        assert not isinstance(node, ast.Assert), "raise an AttnprobeError instead of assert"


def test_only_fused_kernels_import_triton():
    users = [path.name for path in SOURCES if "triton" in path.read_text()]
    assert set(users) <= {"fused.py", "_launching.py", "_programs.py", "_programs_heads.py"}


@pytest.mark.parametrize("package", CONSTANTS)
def test_plugins_export_their_constant(package):
    for name in plugins.names(package):
        plugins.load(package, name, CONSTANTS[package])


def test_an_unknown_plugin_lists_the_known_ones():
    with pytest.raises(AttnprobeError, match="distance, entropy"):
        plugins.load("attnprobe.metrics", "os", "METRIC")


def test_public_names_are_the_written_list():
    assert sorted(attnprobe.__all__) == dir(attnprobe)
    for name in attnprobe.__all__:
        assert callable(getattr(attnprobe, name))
    with pytest.raises(AttributeError):
        attnprobe.nonsense  # noqa: B018


def test_public_functions_survive_their_modules():
    importlib.import_module("attnprobe.report")
    importlib.import_module("attnprobe.capture")
    assert callable(attnprobe.report)
    assert callable(attnprobe.capture)


def test_no_path_of_a_machine_and_no_host_in_the_tree():
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    pattern = re.compile(r"/(?:root|home)/\w|/tmp/dev|pypi\.org|files\.pythonhosted")
    for name in filter(None, files):
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".txt", ".csv", ".json"}
            and path.name != Path(__file__).name
        ):
            assert not pattern.search(path.read_text()), name


def imports(code, module):
    """Whether running `code` in a new process imports `module`."""
    check = f"{code}\nimport sys\nsys.exit(10 if {module!r} in sys.modules else 11)"
    status = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True)
    assert status.returncode in (10, 11), status.stderr
    return status.returncode == 10


HELP = """
import attnprobe.cli
try:
    attnprobe.cli.main(["--help"])
except SystemExit:
    pass
"""


@pytest.mark.parametrize("module", ["torch", "timm", "pandas", "plotly", "rich"])
def test_help_imports_nothing_heavy(module):
    assert not imports(HELP, module)


@pytest.mark.slow
def test_the_import_check_can_fail():
    assert imports(HELP + "import torch", "torch")
    assert imports("import attnprobe; attnprobe.analyze", "torch")

"""The package as it is installed: examples, README, lazy imports, data in the wheel."""

import ast
import doctest
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import dlnds as dl

ROOT = Path(__file__).parents[1]
MODULES = [
    m.name for m in pkgutil.walk_packages(dl.__path__, "dlnds.") if m.name != "dlnds.__main__"
]
PUBLIC = sorted(name for name in dl.__all__ if not inspect.ismodule(getattr(dl, name)))


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings(name):
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings_have_an_example(name):
    thing = getattr(dl, name)
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        assert "Examples\n" in thing.__doc__, name


def python(code, cwd):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip


def test_importing_the_package_loads_neither_numba_nor_matplotlib(tmp_path):
    heavy = "{'numba', 'matplotlib', 'scipy'}"
    assert python(f"import sys, dlnds; print({heavy} & set(sys.modules))", tmp_path) == "set()\n"


def test_every_public_name_can_be_loaded_and_is_listed(tmp_path):
    assert set(dl.__all__) <= set(dir(dl))
    with pytest.raises(AttributeError, match="nothing"):
        _ = dl.nothing
    assert dl.__version__ == "0.2.0"


def test_modules_of_folders_are_public_names_before_anything_else_is_used(tmp_path):
    code = "import dlnds as dl; print(dl.events.__name__, dl.losses.__name__)"
    assert python(code, tmp_path) == "dlnds.runs.events dlnds.systems.losses\n"


def test_accessor_is_registered_by_the_import():
    assert type(xr.Dataset().dlnds).__name__ == "DlndsAccessor"


def test_the_wheel_carries_data_and_type_marker(tmp_path):
    folder = Path(dl.__file__).parent
    if folder.parent == ROOT:
        pytest.skip("runs from the source tree, not from a wheel")
    assert (folder / "py.typed").is_file()
    names = {p.name for p in (folder / "data").iterdir()}
    assert names == {p.name for p in (ROOT / "data").iterdir()}
    assert (
        python("import dlnds; print(dlnds.load_problem('linnerud', hidden=(2,)).widths)", tmp_path)
        == "(3, 2, 3)\n"
    )


@pytest.mark.compiled
def test_the_script_of_the_readme_prints_what_it_says(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    printed = re.search(r"prints `(\{0,1.*?)`", text).group(1)
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    assert (
        python("import matplotlib; matplotlib.use('agg')\n" + script, tmp_path).strip() == printed
    )
    assert (tmp_path / "run.png").is_file()
    assert dl.load(tmp_path / "run.nc").attrs["limit"] == "{0,1,2,3,4,5,6,7}"


def test_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_what_is_checked_before_a_commit_is_what_nox_checks():
    hooks = re.findall(r"entry: (?:env \S+ )?(.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    lint = (ROOT / "noxfile.py").read_text().partition("def lint(")[2].partition("@nox")[0]
    calls = re.findall(r"session\.run\((.*?)(?:, env=.*)?\)\n", lint)
    assert hooks == [" ".join(re.findall(r'"([^"]*)"', call)) for call in calls]


def test_the_picture_of_the_folders_shows_the_imports_of_today():
    site = ROOT / "studies" / "site"
    spec = importlib.util.spec_from_file_location("house", site / "house.py")
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    assert {room for pair in house.imports() for room in pair} == set(house.ROOMS)
    drawn = (site / "house.svg").read_text(encoding="utf-8")
    assert drawn == house.picture(), "run python studies/site/house.py"
    for target in re.findall(
        r"\]\(([^)]+)\)", (site / "developers.md").read_text(encoding="utf-8")
    ):
        assert (site / target).is_file(), target


def test_nothing_is_pickled():
    """Pickles of others are looked through, never loaded: no name of a module that would."""
    words = ("pickle", "dill", "joblib", "marshal", "shelve")
    for path in (ROOT / "dlnds").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [
                *(alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")),
                *(getattr(node, key, None) or "" for key in ("module", "attr", "id")),
            ]
            used = [name for name in names if any(word in name for word in words)]
            assert set(used) <= {"pickletools"}, path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.literal_eval(node.value) is False, path


@pytest.mark.parametrize(
    ("script", "spared"),
    [
        ("import dlnds.cli", ["matplotlib"]),
        ("import dlnds; dlnds.events, dlnds.losses", ["matplotlib", "scipy.optimize"]),
    ],
)
def test_what_takes_long_to_load_is_loaded_when_it_is_needed(script, spared, tmp_path):
    loaded = f"print([name for name in {spared} if name in sys.modules])"
    assert python(f"import sys; {script}; {loaded}", tmp_path) == "[]\n"

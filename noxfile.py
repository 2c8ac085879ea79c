"""Sessions that check the project: ``nox -s tests`` is the one to run first."""

import shutil
import tempfile
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint"]
ROOT = Path(__file__).parent
#: The configuration of the tests, which are run outside of the source tree.
CONFIG = f"--config-file={ROOT / 'pyproject.toml'}"
#: Two worker processes that share compiled code; each file of tests is run whole by one of them.
SHARED = ("-n", "2", "--dist", "loadfile")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def install(session: nox.Session, group: str, *constraints: str) -> None:
    """Install the package as a wheel, with the tools of a dependency group."""
    tools = nox.project.dependency_groups(PROJECT, group)
    session.install(".[all]", *tools, *constraints)


def outside(session: nox.Session) -> None:
    """Leave the source tree, so that nothing but the installed wheel can be imported."""
    session.chdir(tempfile.mkdtemp(prefix="dlnds-"))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests and the examples of the docstrings on the installed wheel, compiled."""
    install(session, "test")
    outside(session)
    session.run("pytest", CONFIG, *SHARED, str(ROOT / "tests"), *session.posargs, env=ONE_THREAD)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the long versions of the tests."""
    install(session, "test")
    outside(session)
    session.run("pytest", CONFIG, "-m", "slow", str(ROOT / "tests"), *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Put small wrongs into the package, one at a time, and print those that no test notices."""
    install(session, "test")
    outside(session)
    session.run("python", str(ROOT / "tests" / "mutants.py"), *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the page of an atlas in Chromium, which has to be installed with its driver."""
    missing = [tool for tool in ("chromium", "chromedriver") if shutil.which(tool) is None]
    if missing:
        session.error(f"needs {', '.join(missing)}: apt-get install chromium chromium-driver")
    install(session, "browser")
    outside(session)
    session.run("pytest", CONFIG, "-m", "browser", str(ROOT / "tests"), *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure branch coverage with the compiler off, so that kernels count."""
    install(session, "coverage")
    outside(session)
    session.run(
        "pytest",
        CONFIG,
        "-m",
        "not slow and not compiled and not browser and not site",
        "-W",  # numpy scalars warn where compiled arithmetic gives infinity or NaN
        "ignore::RuntimeWarning",
        "--cov=dlnds",
        "--cov-branch",
        f"--cov-config={ROOT / 'pyproject.toml'}",
        "--cov-report=term-missing:skip-covered",
        str(ROOT / "tests"),
        *session.posargs,
        env={"NUMBA_DISABLE_JIT": "1"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, and the order of imports, as ``.pre-commit-config.yaml`` does, too."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"), ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports", env={"PYTHONPATH": "."})


@nox.session
def studies(session: nox.Session) -> None:
    """Run every study in its quick form; the pictures go to a temporary folder."""
    session.install(".[all]")
    outside(session)
    for study in sorted((ROOT / "studies").glob("*.py")):
        session.run("python", str(study), "--quick")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/site: all of its code runs, its links are checked."""
    session.install(".[docs]", *nox.project.dependency_groups(PROJECT, "browser"))
    site, out = ROOT / "studies" / "site", ROOT / "build" / "site"
    strict = ("-q", "-W", "--keep-going")
    session.run("python", "-m", "sphinx", *strict, str(site), str(out), env=ONE_THREAD)
    looks = str(ROOT / "tests" / "test_built_site.py")
    session.run("pytest", CONFIG, "-m", "site", looks, *session.posargs, env={"SITE": str(out)})


@nox.session
def bench(session: nox.Session) -> None:
    """Print measured figures beside their goals; misses are printed as misses."""
    install(session, "bench")
    missing = [tool for tool in ("gfortran", "g++", "cmake") if shutil.which(tool) is None]
    if missing:
        session.warn(f"numbalsoda is left out: it needs {', '.join(missing)} (Debian's packages)")
    else:
        session.install(
            "--no-cache-dir",  # a wheel kept by pip may be built without these options
            *nox.project.dependency_groups(PROJECT, "bench-fortran"),
            env={"FFLAGS": "-O3 -march=native", "CXXFLAGS": "-O3 -march=native"},
            success_codes=[0, 1],
        )
    outside(session)
    for bench in sorted((ROOT / "tests" / "bench").glob("bench_*.py")):
        session.run("python", str(bench), *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows."""
    lowest = [d.replace(">=", "==") for d in PROJECT["project"]["dependencies"]]
    install(session, "test", *lowest)
    outside(session)
    # Old releases may deprecate what newer releases of their own dependencies have changed.
    quiet = ["-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"]
    laws = str(ROOT / "tests")
    session.run("pytest", CONFIG, *SHARED, *quiet, laws, *session.posargs, env=ONE_THREAD)

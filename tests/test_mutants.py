"""The fixed list of wrongs that ``nox -s mutants`` puts into the package fits the sources."""

import pytest
from mutants import MUTANTS, PACKAGE, TESTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutants_replace_one_place_of_the_package_and_have_tests(mutant):
    source = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.text) == 1
    compile(source.replace(mutant.text, mutant.instead), mutant.file, "exec")
    assert mutant.instead != mutant.text
    assert all((TESTS / name).exists() for name in mutant.tests)


def test_the_names_of_mutants_differ():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)

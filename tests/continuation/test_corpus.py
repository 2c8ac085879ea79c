"""Textbook problems, all of whose special points are known, in many coordinates and from many
starts: what a branch says of them has to be right in all."""

import numpy as np
import pytest
from continuation import corpus

#: Variants of each problem in the suite, in the long version, and how many of those of heavy ones.
FEW, MANY, HEAVY = 4, 40, 4
#: From this size on, one variant in the suite; this one alone would take a third of its time.
LARGE, LONGEST = 20, "allen_cahn_200_16220"
NAMES = [problem.name for problem in corpus.PROBLEMS]
DIAGRAMS = [problem for problem in corpus.PROBLEMS if problem.diagram]


def few(order):
    """Numbers of the variants of a problem in the suite: the plain one, and others in turn."""
    return [0, 1 + order % 8, 9 + order % 8, 17 + order % 8]


def in_suite():
    return [
        (problem, number)
        for order, problem in enumerate(corpus.PROBLEMS)
        for number in few(order)[: 1 if problem.size >= LARGE else FEW]
        if problem.name != LONGEST
    ]


def in_long_version():
    return [
        (problem, number)
        for problem in corpus.PROBLEMS
        for number in range(HEAVY if problem.heavy else MANY)
    ]


def called(pairs):
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1]}") for pair in pairs]


@pytest.mark.parametrize(("problem", "number"), called(in_suite()))
def test_branches_are_right(problem, number):
    variant = corpus.variant_of(problem, number)
    assert list(corpus.check(problem, variant, corpus.run(problem, variant))) == []


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "number"), called(in_long_version()))
def test_branches_are_right_in_many_coordinates(problem, number):
    test_branches_are_right(problem, number)


def diagrams_in_suite():
    """The plain variant, and that from a round number with differences, in turn."""
    return [(problem, order % 2) for order, problem in enumerate(DIAGRAMS)]


@pytest.mark.parametrize(("problem", "number"), called(diagrams_in_suite()))
def test_diagrams_have_all_branches(problem, number):
    variant = corpus.diagram_variant_of(problem, number)
    tree = corpus.run_diagram(problem, variant)
    assert list(corpus.check_diagram(problem, variant, tree)) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
@pytest.mark.parametrize("problem", DIAGRAMS, ids=lambda problem: problem.name)
def test_diagrams_have_all_branches_in_many_coordinates(problem, number):
    test_diagrams_have_all_branches(problem, number)


@pytest.mark.parametrize("problem", corpus.PROBLEMS, ids=NAMES)
def test_the_answers_follow_from_the_equations(problem):
    """By nothing but F and its Jacobian: starts, curves, derivatives, and special points."""
    for curve in problem.curves:
        assert list(corpus.wrong_answers(problem, curve)) == []


def test_no_two_problems_have_one_name():
    assert len(set(NAMES)) == len(NAMES)


def damaged(branch, **values):
    """A copy of a branch with other values of some variables in its rows."""
    copy = branch.copy(deep=True)
    for name, (row, value) in values.items():
        copy[name].values[row] = value
    return copy


def test_the_check_sees_what_is_wrong():
    """Each of these is one of the ways in which branches went wrong."""
    problem = next(p for p in corpus.PROBLEMS if p.name == "fold")
    variant = corpus.variant_of(problem, 0)
    branch = corpus.run(problem, variant)
    event = int(np.flatnonzero(branch["event"].values)[0])
    start, index = int(branch.attrs["start_step"]), branch["index"].values
    wrong = {
        "start": damaged(branch, p=(start, np.nextafter(variant.q0, 0.0))),
        "bounds": damaged(branch, p=(0, variant.bounds[0] - 1e-9)),
        "residual": damaged(branch, state=(2, branch["state"].values[2] + 1e-6)),
        "curve": damaged(branch, state=(2, -branch["state"].values[2])),
        "missed": damaged(branch, event=(event, 0)),
        "false": damaged(branch, event=(2, branch["event"].values[event])),
        "kernel": damaged(branch, kernel_dimension=(event, 2)),
        "invariant": damaged(branch, index=(2, 1 - index[2])),
        "index": damaged(branch, index=(slice(None), 1 - index)),
        "stop": branch.assign_attrs(last_stop="max_points"),
        "closed": branch.assign_attrs(last_stop="closed"),
    }
    for word, other in wrong.items():
        found = list(corpus.check(problem, variant, other))
        assert any(text.startswith(word) for text in found), (word, found)
    assert list(corpus.check(problem, variant, branch)) == []

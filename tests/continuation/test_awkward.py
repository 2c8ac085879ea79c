"""Awkward calls of `branch`: right, or told."""

import awkward
import pytest

#: Neither right nor told yet: of the long version alone.
UNMENDED = ("right_derivatives_of_badly_scaled_equations",)


@pytest.mark.parametrize("name", [name for name in awkward.CALLS if name not in UNMENDED])
def test_nothing_is_wrong_without_telling(name):
    awkward.CALLS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", UNMENDED)
def test_nothing_more_is_wrong_without_telling(name):
    awkward.CALLS[name]()

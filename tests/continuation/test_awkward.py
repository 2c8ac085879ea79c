"""Awkward calls of `branch`: right, or told."""

import awkward
import pytest

#: Neither right nor told yet: of the long version alone.
UNMENDED = (
    "a_start_where_newtons_method_has_no_direction",
    "a_start_next_to_a_transcritical_point",
    "right_derivatives_of_badly_scaled_equations",
    "bounds_a_hair_apart",
)


@pytest.mark.parametrize("name", [name for name in awkward.CALLS if name not in UNMENDED])
def test_nothing_is_wrong_without_telling(name):
    awkward.CALLS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", UNMENDED)
def test_nothing_more_is_wrong_without_telling(name):
    awkward.CALLS[name]()

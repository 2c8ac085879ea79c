"""Awkward calls of `branch`: right, or told."""

import awkward
import pytest


@pytest.mark.parametrize("name", awkward.CALLS)
def test_nothing_is_wrong_without_telling(name):
    awkward.CALLS[name]()

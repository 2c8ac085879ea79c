import hashlib
import os
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

# A cache for each state of the kernels, so that to go back to one compiles nothing; set before
# anything imports Numba.
_spec = __import__("importlib.util").util.find_spec("dlnds")
_kernels = Path(_spec.origin).parent / "_kernels"
_digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(_kernels.glob("*.py"))))
os.environ["NUMBA_CACHE_DIR"] = str(
    Path(tempfile.gettempdir()) / f"dlnds-numba-{_digest.hexdigest()[:16]}"
)
os.environ.setdefault("MPLBACKEND", "agg")

hypothesis.settings.register_profile(
    "dlnds", deadline=None, derandomize=True, max_examples=40, print_blob=True
)
hypothesis.settings.load_profile("dlnds")


@pytest.fixture(autouse=True)
def _no_figures_left():
    """Close what a test has drawn, which would count against later ones of the same process."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

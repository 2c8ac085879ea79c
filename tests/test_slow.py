"""Long versions of the laws; ``nox -s slow`` runs them."""

import naive
import numpy as np
import pytest

import dlnds as dl
from dlnds import cli

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(300))
def test_random_problems_break_no_law(seed):
    """Depth 1 to 6, widths 1 to 32, repeated, zero and extreme singular values, every C."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 33, size=rng.integers(2, 8)).tolist()
    net = naive.random_network(widths, seed, naive.KINDS[seed % 3])
    U, s, Vt = np.linalg.svd(net.target, full_matrices=False)
    s = [s, np.round(s), s * 10.0 ** rng.uniform(-6, 0, size=len(s)), s * (s > 1.0)][seed % 4]
    target = (U * np.sort(s)[::-1]) @ Vt
    net = dl.LinearNetwork(widths=widths, target=target, input_root=net.input_root)
    x = naive.state_of(net, seed, 1.0 / np.sqrt(max(widths)))
    expected = naive.field(net, x)
    np.testing.assert_allclose(
        -net.gradient(x), expected, rtol=0, atol=1e-11 * (1 + np.abs(expected).max())
    )
    run = dl.flow(net, x, (0, 0.1), save=("conserved",), max_steps=2000)
    assert np.isfinite(run.loss).all()
    assert (np.diff(run.loss) <= 1e-12 * (1 + run.loss.values[0])).all()
    if net.depth > 1:
        size = 1 + np.abs(run.conserved).max()
        assert np.abs(run.conserved - run.conserved[0]).max() < 1e-6 * size
    for modes in [(), tuple(range(net.max_rank))]:
        if net.depth == 1 and len(modes) < np.count_nonzero(net.singular_values):
            continue
        y = net.critical_state(modes)
        layers = [np.linalg.norm(w) for w in (*net.unpack(y), naive.root(net))]
        assert np.abs(naive.field(net, y)).max() < 1e-11 * (1 + np.prod(layers) ** 2) * (
            1 + np.linalg.norm(target)
        )


@pytest.mark.parametrize("name", dl.problem_names())
@pytest.mark.parametrize("extra", [[], ["--raw-inputs"]])
def test_atlas_of_every_data_set(tmp_path, name, extra):
    out = str(tmp_path / "atlas.nc")
    arguments = f"atlas --data {name} --max-rank 2 --quiet --max-steps 3000 --out {out}".split()
    assert cli.main([*arguments, *extra]) == 0
    dl.schema.validate(dl.load(out))


def test_no_damage_to_a_file_is_silent(tmp_path):
    path = tmp_path / "atlas.nc"
    atlas = dl.build_atlas(dl.load_problem("linnerud", hidden=(3, 3)))
    dl.save(atlas, path)
    content = path.read_bytes()
    seal = len(content) - content.rindex(b"\ndlnds sha256 ")
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content) - seal, 1000):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="^path: "):
            dl.load(path)
    for length in rng.integers(0, len(content) - seal, 100):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="^path: "):
            dl.load(path)

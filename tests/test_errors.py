"""Bad input to every public function: an error that starts with the argument's name."""

import numpy as np
import pytest
import xarray as xr

import dlnds as dl

NET = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
RAW = dl.LinearNetwork(widths=(2, 3, 2), target=np.eye(2), input_root=[[1.0, 0], [1.0, 2.0]])
X = np.full(NET.dim, 0.1)
POINTS = dl.critical_points(NET)
RUN = dl.flow(NET, X, (0, 1))
DECAY = dl.System(lambda t, x, params, out: None, dim=1)
NAN, EYE = np.nan, np.eye(2)


def field(t, x, params, out):
    out[0] = -x[0]


def field_of_two(t, x, params, out):
    out[1] = -x[1] + out[0] * 0


def field_with_parameter(t, x, params, out):
    out[0] = params[1][0]


def uncompilable(t, x, params, out):
    out[0] = float(str(x[0]).split(".")[0])


CASES = [
    ("widths", lambda: dl.LinearNetwork(widths=(2,), target=EYE)),
    ("widths", lambda: dl.LinearNetwork(widths=(2, -3, 2), target=EYE)),
    ("widths", lambda: dl.LinearNetwork(widths=(2, 0, 2), target=EYE)),
    ("widths", lambda: dl.LinearNetwork(widths=(2, 2.5, 2), target=EYE)),
    ("widths", lambda: dl.LinearNetwork(widths="222", target=EYE)),
    ("widths", lambda: dl.LinearNetwork(widths=2, target=EYE)),
    ("target", lambda: dl.LinearNetwork(widths=(2, 3), target=EYE)),
    ("target", lambda: dl.LinearNetwork(widths=(2, 2), target=[1.0, 2.0])),
    ("target", lambda: dl.LinearNetwork(widths=(2, 2), target=[[1.0, NAN], [0, 1]])),
    ("target", lambda: dl.LinearNetwork(widths=(2, 2), target=[[1.0, np.inf], [0, 1]])),
    ("target", lambda: dl.LinearNetwork(widths=(2, 2), target=1j * EYE)),
    ("target", lambda: dl.LinearNetwork(widths=(2, 2), target=[["a", "b"], ["c", "d"]])),
    ("target", lambda: dl.LinearNetwork(widths=(2, 2), target=[[1.0], [2.0, 3.0]])),
    ("input_root", lambda: dl.LinearNetwork((2, 2), EYE, input_root=np.eye(3))),
    ("input_root", lambda: dl.LinearNetwork((2, 2), EYE, input_root=np.ones((2, 2)))),
    ("width", lambda: dl.LinearNetwork(width=(2, 2), target=EYE)),
    ("widths", lambda: dl.LinearNetwork((2, 10**20, 2), EYE)),
    ("irreducible_loss", lambda: dl.LinearNetwork((2, 2), EYE, irreducible_loss="a")),
    ("features", lambda: dl.LinearNetwork((2, 2), EYE, features=("a",))),
    ("features", lambda: dl.LinearNetwork((2, 2), EYE, whitening=np.ones((3, 2)), features="ab")),
    ("outputs", lambda: dl.LinearNetwork((2, 2), EYE, outputs=(1, 2))),
    ("outputs", lambda: dl.LinearNetwork((2, 2), EYE, outputs=None)),
    ("whiten", lambda: dl.LinearNetwork.from_data(EYE, EYE, (2,), whiten="no")),
    ("normalize", lambda: dl.LinearNetwork.from_data(EYE, EYE, (2,), normalize=EYE)),
    ("X", lambda: dl.LinearNetwork.from_data(xr.Dataset(), EYE, (2,))),
    ("x", lambda: NET.hessian(X * 1e200)),
    ("x", lambda: NET.gradient(X * 1e200)),
    ("scale", lambda: NET.initial(scale=1.7e308, rng=0)),
    ("delta", lambda: NET.initial("delta_balanced", scale=1e3, delta=1e-12)),
    ("rtol", lambda: dl.flow(NET, X, (0, 1), rtol=[[1], [1, 2]])),
    ("rtol", lambda: dl.flow(NET, X, (0, 1), rtol=True)),
    ("save", lambda: dl.flow(NET, X, (0, 1), save=[["state"]])),
    ("progress", lambda: dl.flow(NET, X, (0, 1), progress="no")),
    ("names", lambda: dl.System(field, dim=1, names=3)),
    ("parameters", lambda: dl.System(field, dim=1, parameters=[[1], [1, 2]])),
    ("name", lambda: RUN.dlnds.decode("nothing")),
    ("flags", lambda: dl.schema.decode(RUN.stop_reason + 90)),
    ("mode", lambda: dl.canonical_spectrum(NET, mode=(0,))),
    ("layers", lambda: dl.weights(RUN, layers=1)),
    ("whitening", lambda: dl.LinearNetwork((2, 2), EYE, whitening=np.eye(3))),
    ("X", lambda: dl.LinearNetwork.from_data(np.zeros((2, 0)), EYE, (2,))),
    ("X", lambda: dl.LinearNetwork.from_data(np.zeros((2, 2)), EYE, (2,))),
    ("X", lambda: dl.LinearNetwork.from_data([1.0, 2.0], EYE, (2,))),
    ("Y", lambda: dl.LinearNetwork.from_data(np.eye(3), EYE, (2,))),
    ("Y", lambda: dl.LinearNetwork.from_data(EYE, NAN * EYE, (2,))),
    ("hidden", lambda: dl.LinearNetwork.from_data(EYE, EYE, (2, -1))),
    ("hidden", lambda: dl.LinearNetwork.from_data(EYE, EYE, 3)),
    ("whitened", lambda: dl.LinearNetwork.from_data(EYE, EYE, (2,), whitened=True)),
    ("C", lambda: dl.LinearNetwork.from_moments(EYE, [[1.0, 2.0], [0.0, 1.0]], (2,))),
    ("C", lambda: dl.LinearNetwork.from_moments(EYE, -EYE, (2,))),
    ("C", lambda: dl.LinearNetwork.from_moments(EYE, 0 * EYE, (2,))),
    ("C", lambda: dl.LinearNetwork.from_moments(EYE, np.eye(3), (2,))),
    ("M", lambda: dl.LinearNetwork.from_moments(EYE, np.diag([1.0, 0.0]), (2,))),
    ("name", lambda: dl.load_problem("semantics", hidden=(2,))),
    ("name", lambda: dl.load_problem(3, hidden=(2,))),
    ("path", lambda: dl.read_csv(3)),
    ("transform", lambda: dl.read_csv("linnerud", transform="whiten")),
    ("x", lambda: NET.loss(X[:-1])),
    ("x", lambda: NET.gradient(X * NAN)),
    ("x", lambda: NET.hessian(np.stack([X, X]))),
    ("x", lambda: NET.product(X * 1j)),
    ("x", lambda: NET.unpack([])),
    ("x", lambda: NET.adjacency(3.0)),
    ("x", lambda: NET.conserved("state")),
    ("v", lambda: NET.hessian_product(X, X[:-1])),
    ("layers", lambda: NET.pack([np.zeros((3, 2))])),
    ("layers", lambda: NET.pack([np.zeros((2, 3)), np.zeros((2, 3))])),
    ("layers", lambda: NET.pack(X)),
    ("product", lambda: NET.unwhiten(np.eye(3))),
    ("kind", lambda: NET.initial("gausian")),
    ("kind", lambda: NET.initial(3)),
    ("kind", lambda: RAW.initial("aligned")),
    ("kind", lambda: dl.LinearNetwork((2, 2), EYE).initial("delta_balanced", delta=0.1)),
    ("scale", lambda: NET.initial(scale=-1.0)),
    ("scale", lambda: NET.initial(scale=NAN)),
    ("scale", lambda: NET.initial("aligned", scale=[1.0, 2.0, 3.0])),
    ("scale", lambda: NET.initial("aligned", scale=-1.0)),
    ("delta", lambda: NET.initial("delta_balanced")),
    ("delta", lambda: NET.initial("gaussian", delta=0.1)),
    ("delta", lambda: NET.initial("delta_balanced", delta=-0.1)),
    ("rng", lambda: NET.initial(rng="seed")),
    ("rng", lambda: NET.initial(rng=-1)),
    ("rng", lambda: NET.initial(rng=np.random.RandomState(0))),
    ("modes", lambda: NET.critical_state((0, 0))),
    ("modes", lambda: NET.critical_state((2,))),
    ("modes", lambda: NET.critical_state((-1,))),
    ("modes", lambda: NET.critical_state("0")),
    ("modes", lambda: NET.critical_state((0.5,))),
    ("modes", lambda: dl.LinearNetwork((2, 1, 2), EYE).critical_state((0, 1))),
    ("modes", lambda: dl.LinearNetwork((2, 3, 2), np.diag([1.0, 0])).critical_state((1,))),
    ("modes", lambda: dl.LinearNetwork((2, 2), EYE).critical_state((0,))),
    ("system", lambda: dl.flow("lorenz", X)),
    ("start", lambda: dl.flow(NET, X[:-1])),
    ("start", lambda: dl.flow(NET, X * NAN)),
    ("start", lambda: dl.flow(NET, np.zeros((0, NET.dim)))),
    ("start", lambda: dl.flow(NET, np.zeros((1, 1, NET.dim)))),
    ("t_span", lambda: dl.flow(NET, X, (1, 0))),
    ("t_span", lambda: dl.flow(NET, X, (1, 1))),
    ("t_span", lambda: dl.flow(NET, X, (0, NAN))),
    ("t_span", lambda: dl.flow(NET, X, (-np.inf, 0))),
    ("t_span", lambda: dl.flow(NET, X, (0, 1, 2))),
    ("t_span", lambda: dl.flow(NET, X, 5.0)),
    ("t_span", lambda: dl.flow(NET, X, (0, "end"))),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), [0.5, 0.2])),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), [0.5, 0.5])),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), [0.5, 2.0])),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), [-0.5])),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), [NAN])),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), [])),
    ("t_eval", lambda: dl.flow(NET, X, (0, 1), 0.5)),
    ("method", lambda: dl.flow(NET, X, (0, 1), method="dop835")),
    ("rtol", lambda: dl.flow(NET, X, (0, 1), rtol=0.0)),
    ("rtol", lambda: dl.flow(NET, X, (0, 1), rtol=-1e-8)),
    ("rtol", lambda: dl.flow(NET, X, (0, 1), rtol=1e-20)),
    ("rtol", lambda: dl.flow(NET, X, (0, 1), rtol="tight")),
    ("atol", lambda: dl.flow(NET, X, (0, 1), atol=-1.0)),
    ("atol", lambda: dl.flow(NET, X, (0, 1), atol=NAN)),
    ("save", lambda: dl.flow(NET, X, (0, 1), save=("singular_values",))),
    ("save", lambda: dl.flow(NET, X, (0, 1), save="state")),
    ("save", lambda: dl.flow(NET, X, (0, 1), save=3)),
    ("max_steps", lambda: dl.flow(NET, X, (0, 1), max_steps=0)),
    ("max_steps", lambda: dl.flow(NET, X, (0, 1), max_steps=2.5)),
    ("rtoll", lambda: dl.flow(NET, X, (0, 1), rtoll=1e-8)),
    ("field", lambda: dl.System(3, dim=1)),
    ("field", lambda: dl.System(field_of_two, dim=1)),
    ("field", lambda: dl.System(field_with_parameter, dim=1)),
    ("field", lambda: dl.System(lambda t, x, params, out: -x, dim=1)),
    ("field", lambda: dl.System(lambda t, x: None, dim=1)),
    ("dims", lambda: dl.System(field, dims=1)),
    ("dim", lambda: dl.System(field, dim=0)),
    ("dim", lambda: dl.System(field, dim=1.5)),
    ("parameters", lambda: dl.System(field, dim=1, parameters=[NAN])),
    ("parameters", lambda: dl.System(field, dim=1, parameters=["a"])),
    ("energy", lambda: dl.System(field, dim=1, energy=3)),
    ("names", lambda: dl.System(field, dim=1, names=("x", "y"))),
    ("net", lambda: dl.critical_points(EYE)),
    ("max_rank", lambda: dl.critical_points(NET, max_rank=-1)),
    ("modes", lambda: dl.critical_points(NET, modes=[2])),
    ("modes", lambda: dl.critical_points(NET, modes=0)),
    ("modes", lambda: dl.critical_points(NET, modes=(0, 0))),
    ("modes", lambda: dl.critical_points(dl.LinearNetwork((2, 2), EYE), modes=[0])),
    ("max_rank", lambda: dl.critical_points(dl.LinearNetwork((2, 2), EYE), max_rank=1)),
    ("system", lambda: dl.linearize(EYE, X)),
    ("x", lambda: dl.linearize(NET, X[:-1])),
    ("x", lambda: dl.linearize(NET, np.stack([X, X]))),
    ("t", lambda: dl.linearize(NET, X, t=NAN)),
    ("zero_tolerance", lambda: dl.linearize(NET, X, zero_tolerance=-1.0)),
    ("method", lambda: dl.linearize(NET, X, method="closd")),
    ("method", lambda: dl.linearize(NET, X, method="known")),
    ("method", lambda: dl.linearize(DECAY, np.ones(DECAY.dim), method="iterative")),
    ("n_eigenvalues", lambda: dl.linearize(NET, X, which="largest")),
    ("which", lambda: dl.linearize(DECAY, np.ones(DECAY.dim), which="negative")),
    ("which", lambda: dl.linearize(NET, X, method="iterative", which="lowest")),
    ("n_eigenvalues", lambda: dl.linearize(NET, X, which="negative", n_eigenvalues=3)),
    ("n_eigenvalues", lambda: dl.linearize(NET, X, n_eigenvalues=NET.dim + 1)),
    ("eigenvectors", lambda: dl.linearize(NET, X, method="known", eigenvectors=True)),
    ("x", lambda: dl.hessian(NET, X[:-1])),
    ("v", lambda: dl.hessian_product(NET, X, X[:-1])),
    ("t", lambda: dl.hessian(NET, X, t=NAN)),
    ("n_eigenvalues", lambda: dl.linearize(NET, X, method="iterative", which="largest")),
    (
        "n_eigenvalues",
        lambda: dl.linearize(NET, X, method="iterative", which="largest", n_eigenvalues=0),
    ),
    ("system", lambda: dl.inertia(DECAY, np.ones(DECAY.dim))),
    ("x", lambda: dl.inertia(NET, X[:-1])),
    ("zero_tolerance", lambda: dl.inertia(NET, X, zero_tolerance=NAN)),
    ("net", lambda: dl.canonical_spectrum(EYE, (0,))),
    ("net", lambda: dl.canonical_spectrum(RAW, (0,))),
    ("modes", lambda: dl.canonical_spectrum(NET, (5,))),
    ("net", lambda: dl.build_atlas(None)),
    ("n_alfa", lambda: dl.build_atlas(NET, n_alfa=3)),
    ("singular_values", lambda: dl.check_assumptions([1.0, 2.0])),
    ("singular_values", lambda: dl.check_assumptions([-1.0])),
    ("singular_values", lambda: dl.check_assumptions([])),
    ("rtol", lambda: dl.check_assumptions([1.0], rtol=-1.0)),
    ("widths", lambda: dl.check_assumptions([1.0], widths=(1, -1))),
    ("dataset", lambda: dl.weights(POINTS, 1)),
    ("dataset", lambda: dl.weights(X, 1)),
    ("layer", lambda: dl.weights(RUN, 0)),
    ("layer", lambda: dl.weights(RUN, 3)),
    ("layer", lambda: dl.weights(RUN, "first")),
]


@pytest.mark.parametrize(("name", "call"), CASES, ids=range(len(CASES)))
def test_bad_input_is_refused_by_the_name_of_its_argument(name, call):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert str(caught.value).startswith(f"{name}: "), str(caught.value)


@pytest.mark.compiled
def test_functions_that_cannot_be_compiled_are_refused():
    with pytest.raises(TypeError, match="^field: cannot be compiled"):
        dl.System(uncompilable, dim=1)


def test_unknown_words_are_answered_with_the_nearest():
    with pytest.raises(TypeError, match="did you mean 'rtol'"):
        dl.flow(NET, X, (0, 1), rtoll=1e-8)
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        NET.initial("gausian")
    with pytest.raises(ValueError, match="did you mean 'singular_value'"):
        dl.flow(NET, X, (0, 1), save=("singular_values",))


def test_a_jacobian_that_is_not_finite_is_refused():
    def bad(t, x, params, out):
        out[0] = 1.0 / x[0]

    def nothing(t, x, params, out):
        out[0, 0] = np.nan

    with pytest.raises(ValueError, match="^x: the Jacobian at this state is not finite"):
        dl.linearize(dl.System(bad, dim=1, jacobian=nothing), [1.0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_states_of_any_memory_layout_are_taken_and_left_alone(order):
    stack = np.array(np.stack([X, 2 * X, 3 * X]), order=order)[::2]
    stack.setflags(write=False)
    before = stack.copy()
    runs = dl.flow(NET, stack, (0, 1), [1.0])
    np.testing.assert_array_equal(stack, before)
    assert runs.identical(dl.flow(NET, before.tolist(), (0, 1), [1.0]))
    assert NET.loss(np.array([1] * 12)) == NET.loss(np.ones(12))


def test_a_float_without_decimals_is_an_integer():
    """As other programs give whole numbers; one with decimals, or without end, is none."""
    data = np.ones((2, 3)), np.ones(3)
    own = [dl.HomogeneousNetwork((2, 2, 1), *data, power=power) for power in (3, 3.0)]
    assert [type(net.power) for net in own] == [int, int]
    assert repr(own[0]) == repr(own[1])
    net = dl.LinearNetwork(widths=(2, 3.0, np.float32(2)), target=EYE)
    assert (net.widths, {type(width) for width in net.widths}) == ((2, 3, 2), {int})
    for wrong in (2.5, np.nan, np.inf, True, "2", 2.0 + 0.0j):
        with pytest.raises(TypeError, match="^widths: needs an integer"):
            dl.LinearNetwork(widths=(2, wrong, 2), target=EYE)

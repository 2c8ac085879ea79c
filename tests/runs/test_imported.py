"""Training runs of others: read from files, recorded, and taken in, or refused by name."""

import collections
import gc
import io
import itertools
import json
import os
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile
from unittest import mock

import naive
import numpy as np
import pytest
import scipy.stats

import dlnds as dl

STEPS = (0, 50, 100, 1000)
SAVE = (
    *("state", "singular_value", "imbalance", "unit_size", "gradient_norm", "product"),
    *("layer_singular_value", "alignment", "ntk_distance", "sharpness"),
)
NET = naive.random_network((3, 4, 4, 2), 0)
SQUARE = naive.random_network((3, 3, 3, 3), 1)
DATA = np.random.default_rng(0).normal(size=(2, 3, 40))
WHITENED = dl.LinearNetwork.from_data(DATA[0], DATA[1] + DATA[0] ** 2, hidden=(4,))


def snapshots(net, seed=0):
    """Return weights at each step that no symmetry relates."""
    rng = np.random.default_rng(seed)
    return [list(net.unpack(rng.normal(size=net.dim))) for _ in STEPS]


def named(layers, form="fc{}.weight"):
    return {form.format(i): w for i, w in enumerate(layers)}


# Weights in hand.


class Tensor:
    """What torch offers of a tensor that has a gradient."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array


def test_training_runs_of_others_come_into_the_schema():
    net = naive.random_network((3, 4, 2), 0)
    steps = dl.iterate(dl.GradientDescent(net, step_size=0.05), net.initial(scale=0.3, rng=0), 40)
    save = ("state", "singular_value", "imbalance")
    layers = [[Tensor(w.astype(np.float32)) for w in net.unpack(x)] for x in steps.state.values]
    run = dl.as_run(net, 0.05 * steps.iteration, layers, save=save)
    dl.schema.validate(run)
    np.testing.assert_allclose(run.loss, steps.loss, rtol=1e-5, atol=1e-6)
    assert run.limit == steps.limit
    np.testing.assert_allclose(dl.weights(run, 2)[7], net.unpack(steps.state[7])[1], rtol=1e-6)
    for name, call in [
        ("times", lambda: dl.as_run(net, [1.0, 0.0], layers[:2])),
        ("layers", lambda: dl.as_run(net, [0.0, 1.0], layers[:3])),
        ("layers", lambda: dl.as_run(net, [0.0], [layers[0][:1]])),
        ("layers", lambda: dl.as_run(net, [0.0], 3)),
        (
            "system",
            lambda: dl.as_run(dl.System(lambda t, x, params, out: None, dim=3), [0.0], layers[:1]),
        ),
        ("save", lambda: dl.as_run(net, [0.0], layers[:1], save=("nothing",))),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            call()


# Files, as those who write them write them.


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_safetensors(path, arrays):
    """Write the format: the length of a header, the header in JSON, the numbers."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        word = {"f8": "F64", "f4": "F32", "u2": "BF16"}[array.dtype.str[1:]]
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": word, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Stored:
    """The numbers of tensors, which torch pickles by the name of their entry in the archive."""

    def __init__(self, array):
        self.array = array


class Trained:
    """A parameter, which torch pickles as a tensor in an envelope."""

    def __init__(self, array):
        self.array = array


KINDS = {
    **{"f8": "DoubleStorage", "f4": "FloatStorage", "u2": "BFloat16Storage"},
    **{"i8": "LongStorage", "c16": "ComplexDoubleStorage"},
}


def pass_on():
    """Stand for a function of torch, which is known by its name."""


def write_torch(
    path, arrays, *, alter=lambda things: things, spoil=lambda parts: parts, protocol=2
):
    """Write what ``torch.save`` writes of tensors, in contiguous order or as transposed views."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in KINDS.values():
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType(pass_on.__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if not isinstance(thing, Stored):
                return None
            storages.append(thing.array)
            kind = getattr(torch, KINDS[thing.array.dtype.str[1:]])
            return ("storage", kind, str(len(storages) - 1), "cpu", thing.array.size)

        def reducer_override(self, thing):
            if isinstance(thing, Trained):
                return (utils._rebuild_parameter, (thing.array, True, collections.OrderedDict()))
            if not isinstance(thing, np.ndarray):
                return NotImplemented
            numbers = Stored(np.concatenate([np.zeros(1, thing.dtype), thing.ravel(order="K")]))
            strides = tuple(n // thing.itemsize for n in thing.strides)
            parts = (numbers, 1, thing.shape, strides, False, collections.OrderedDict())
            return (utils._rebuild_tensor_v2, spoil(parts))

    file, state = io.BytesIO(), collections.OrderedDict(arrays)
    state._metadata = {"": {"version": 1}}
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        Pickler(file, protocol=protocol).dump(alter(state))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run/data.pkl", file.getvalue())
        archive.writestr("run/byteorder", "little")
        archive.writestr("run/version", "3\n")
        for number, array in enumerate(storages):
            archive.writestr(f"run/data/{number}", array.tobytes())


WRITERS = {".npz": write_npz, ".safetensors": write_safetensors, ".pt": write_torch}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_run_and_the_same_run_from_files_are_identical(suffix, tmp_path):
    layers = snapshots(NET)
    for step, snapshot in zip(STEPS, layers, strict=True):
        WRITERS[suffix](tmp_path / f"step_{step}{suffix}", named(snapshot))
    (tmp_path / "log.txt").write_text("not weights")
    run = dl.as_run(NET, 0.1 * np.array(STEPS), layers, save=SAVE)
    found = {
        "folder": tmp_path,
        "path of one": [str(tmp_path / f"step_{step}{suffix}") for step in reversed(STEPS)],
    }
    for source in found.values():
        times, weights = dl.read_checkpoints(source, step_size=0.1)
        assert len(weights) == len(STEPS)
        assert dl.as_run(NET, times, weights, save=SAVE).identical(run)
        assert dl.as_run(NET, times[1:], weights[1:], save=SAVE).state.equals(run.state[1:])
    dl.schema.validate(run)


def as_flax(snapshot):
    return {"params": {f"Dense_{i}": {"kernel": w.T} for i, w in enumerate(snapshot)}}


def test_nested_dicts_are_read_as_files_are():
    layers = snapshots(NET)
    run = dl.as_run(NET, STEPS, layers, save=SAVE)
    pairs = list(zip(STEPS, layers, strict=True))
    sources = [
        {step: as_flax(snapshot) for step, snapshot in pairs},
        {f"step_{step}": list(snapshot) for step, snapshot in pairs},
        {f"checkpoint-{step}": {"model": named(snapshot)} for step, snapshot in pairs},
    ]
    for source in sources:
        assert dl.as_run(NET, *dl.read_checkpoints(source), save=SAVE).identical(run)
    listed = [as_flax(snapshot) for snapshot in layers]
    times, weights = dl.read_checkpoints(listed, steps=STEPS)
    assert dl.as_run(NET, times, weights, save=SAVE).identical(run)
    assert dl.read_checkpoints(listed)[0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert dl.as_run(NET, STEPS, listed, save=SAVE).identical(run)
    assert dl.read_checkpoints(listed[0])[0].tolist() == [0.0]


def test_one_file_may_hold_all_times(tmp_path):
    layers = snapshots(NET)
    pairs = zip(STEPS, layers, strict=True)
    arrays = {f"step_{n}/W{i}": w for n, snapshot in pairs for i, w in enumerate(snapshot)}
    write_npz(tmp_path / "all.npz", arrays)
    found = dl.as_run(NET, *dl.read_checkpoints(tmp_path / "all.npz"))
    assert found.identical(dl.as_run(NET, STEPS, layers))


def test_what_is_no_weight_is_left_aside_or_named(tmp_path):
    layers = snapshots(NET)[0]
    states = {"state": {0: {"step": np.ones(()), "exp_avg": np.ones((4, 3))}}, "lr": 0.1}
    whole = {"model": named(layers), "optimizer": states, "epoch": np.array(3)}
    biased = {**named(layers), **{f"fc{i}.bias": np.zeros(len(w)) for i, w in enumerate(layers)}}
    write_torch(tmp_path / "a_1.pt", whole)
    for source in (tmp_path / "a_1.pt", whole, biased, [(w, np.zeros(len(w))) for w in layers]):
        _, weights = dl.read_checkpoints([source] if isinstance(source, list) else source)
        assert all(np.array_equal(a, b) for a, b in zip(weights[0], layers, strict=True))
    chosen = {**named(layers), "conv.weight": np.ones((2, 2, 3, 3)), "embedding": np.ones((9, 9))}
    with pytest.raises(ValueError, match=r"^source: the dict: holds 'conv.weight' of shape"):
        dl.read_checkpoints(chosen)
    _, weights = dl.read_checkpoints(chosen, names=list(named(layers)), orientation="out_in")
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], layers, strict=True))


def test_numbers_in_names_are_numbers_and_shapes_order_the_rest():
    rng = np.random.default_rng(0)
    widths = np.arange(2, 15)
    deep = {f"layers.{i}.weight": rng.normal(size=(i + 3, i + 2)) for i in range(12)}
    shuffled = dict(sorted(deep.items()))  # 0, 1, 10, 11, 2, …
    _, weights = dl.read_checkpoints(shuffled)
    assert [w.shape for w in weights[0]] == [(b, a) for a, b in itertools.pairwise(widths)]
    ends = {
        "out": rng.normal(size=(2, 5)),
        "first": rng.normal(size=(4, 3)),
        "mid": np.ones((5, 4)),
    }
    for turned, orientation in [(False, "out_in"), (True, "in_out")]:
        arrays = {name: w.T if turned else w for name, w in ends.items()}
        with pytest.raises(ValueError, match="^source: .*does not tell the order"):
            dl.read_checkpoints(arrays)
        _, weights = dl.read_checkpoints(arrays, orientation=orientation)
        assert [w.shape for w in weights[0]] == [(4, 3), (5, 4), (2, 5)]
    _, weights = dl.read_checkpoints({f"{name}.weight": w for name, w in ends.items()})
    assert [w.shape for w in weights[0]] == [(4, 3), (5, 4), (2, 5)]


@pytest.mark.parametrize(
    "names",
    [
        ("dense/kernel:0", "dense_1/kernel:0", "dense_10/kernel:0"),
        ("linear.kernel", "linear_2.kernel", "linear_3.kernel"),
        ("params/Dense_2/kernel", "params/Dense_9/kernel", "params/Dense_10/kernel"),
    ],
)
def test_names_of_keras_count_from_the_one_without_a_number(names):
    layers = snapshots(SQUARE)[0]
    pairs = sorted(zip(names, layers, strict=True))
    _, weights = dl.read_checkpoints({name: w.T for name, w in pairs})
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], layers, strict=True))


def test_numbers_at_two_places_of_names_are_no_order():
    source = {name: np.eye(2) for name in ("dense/a_1", "dense_1/a")}
    with pytest.raises(ValueError, match="^source: .*does not tell the order"):
        dl.read_checkpoints(source)


@pytest.mark.parametrize("form", ["{}.weight", "layer_{}/kernel", "W{}"])
def test_square_layers_lie_as_their_names_say_or_as_the_caller(form):
    layers = snapshots(SQUARE)[0]
    given = [w.T for w in layers] if "kernel" in form else layers
    source = named(given, form)
    if "W" in form:
        with pytest.raises(ValueError, match=r"^source: .*orientation='out_in' or 'in_out'"):
            dl.read_checkpoints(source)
        pairs = [("out_in", source), ("in_out", named([w.T for w in layers], form))]
    else:
        pairs = [(None, source)]
    for orientation, arrays in pairs:
        _, weights = dl.read_checkpoints(arrays, orientation=orientation)
        assert all(np.array_equal(a, b) for a, b in zip(weights[0], layers, strict=True))


def test_generators_have_to_end_with_the_times():
    layers = snapshots(NET)
    run = dl.as_run(NET, STEPS, layers)
    assert dl.as_run(NET, STEPS, iter(layers)).identical(run)
    stacks = [np.stack(parts) for parts in zip(*layers, strict=True)]
    assert dl.as_run(NET, STEPS, zip(*stacks, strict=True)).identical(run)
    for times in (STEPS[:-1], (*STEPS, 2000)):
        with pytest.raises(ValueError, match="^layers: needs the weights at each of"):
            dl.as_run(NET, times, iter(layers))


# How layers lie.

ARRANGED = {
    "as given": lambda layers: layers,
    "transposed": lambda layers: [w.T for w in layers],
    "in reverse order": lambda layers: layers[::-1],
    "transposed and in reverse order": lambda layers: [w.T for w in layers[::-1]],
}


@pytest.mark.parametrize("words", ARRANGED)
def test_the_loss_puts_square_layers_right(words):
    layers = snapshots(SQUARE)
    run = dl.as_run(SQUARE, STEPS, layers, save=SAVE)
    given = [ARRANGED[words](snapshot) for snapshot in layers]
    found = dl.as_run(SQUARE, STEPS, given, loss=run.loss.values, save=SAVE)
    assert found.attrs.pop("recorded_loss") == "loss"
    assert found.attrs["arrangement"] == f"{words}, checked by the loss"
    assert found.drop_attrs(deep=False).identical(run.drop_attrs(deep=False))
    dl.schema.validate(found)


def test_shapes_put_layers_right_where_they_tell():
    layers = snapshots(NET)
    run = dl.as_run(NET, STEPS, layers)
    for words, arranged in ARRANGED.items():
        found = dl.as_run(NET, STEPS, [arranged(snapshot) for snapshot in layers])
        assert found.arrangement == words
        assert found.state.identical(run.state)


def test_the_loss_refuses_what_fits_no_way_or_several():
    layers = snapshots(SQUARE)
    run = dl.as_run(SQUARE, STEPS, layers)
    permuted = [[a, c, b] for a, b, c in layers]
    with pytest.raises(ValueError, match=r"^loss: is not that of .*as given: off by .*transposed"):
        dl.as_run(SQUARE, STEPS, permuted, loss=run.loss)
    shifted = run.loss * (1.0 + 1e-4)
    with pytest.raises(ValueError, match="^loss: is not that of the weights"):
        dl.as_run(SQUARE, STEPS, layers, loss=shifted)
    early = [[1e-4 * w for w in snapshot] for snapshot in layers]
    loss = dl.as_run(SQUARE, STEPS, early).loss
    with pytest.raises(ValueError, match="^loss: does not tell .*as given, in reverse order, tra"):
        dl.as_run(SQUARE, STEPS, early, loss=loss)
    palindrome = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    with pytest.raises(ValueError, match="^layers: fit the network only in reverse order, trans"):
        dl.as_run(palindrome, [0.0], [[np.ones((2, 3)), np.ones((3, 2))]])


def test_a_symmetric_problem_has_runs_up_to_their_mirror_image():
    net, layers = dl.LinearNetwork((3, 3, 3, 3), np.diag([3.0, 2.0, 1.0])), snapshots(SQUARE)
    run = dl.as_run(net, STEPS, layers, save=SAVE)
    for words, arranged in ARRANGED.items():
        given = [arranged(snapshot) for snapshot in layers]
        found = dl.as_run(net, STEPS, given, loss=run.loss, save=SAVE)
        kept = (
            "as given" if words in ("as given", "transposed and in reverse order") else "transposed"
        )
        assert found.arrangement == f"{kept}, or the mirror image, checked by the loss"
        for name in ("loss", "singular_value", "imbalance", "gradient_norm"):
            np.testing.assert_allclose(found[name], run[name], rtol=1e-12, atol=1e-12)
    given = [[*snapshot[1:], snapshot[0]] for snapshot in layers]
    with pytest.raises(ValueError, match="^loss: is not that of the weights"):
        dl.as_run(net, STEPS, given, loss=run.loss)


def test_what_shapes_leave_open_is_said():
    layers = snapshots(SQUARE)
    assert dl.as_run(SQUARE, STEPS, layers).arrangement == "as given, not checked"
    turned = [[w.T for w in snapshot] for snapshot in layers]
    run = dl.as_run(SQUARE, STEPS, layers, orientation="out_in")
    found = dl.as_run(SQUARE, STEPS, turned, orientation="in_out")
    assert (run.arrangement, found.arrangement) == ("as given", "transposed")
    assert found.state.identical(run.state)
    with pytest.raises(ValueError, match="^loss: is not that of .*transposed: off by"):
        dl.as_run(SQUARE, STEPS, layers, orientation="in_out", loss=run.loss)
    for function in (dl.Recorder, lambda net, **o: dl.as_run(net, STEPS, layers, **o)):
        with pytest.raises(ValueError, match="^orientation: "):
            function(SQUARE, orientation="sideways")
    with pytest.raises(ValueError, match=r"^layers: needs W_1, .*\(2, 4\), in_out"):
        dl.as_run(NET, STEPS, snapshots(NET), orientation="in_out")
    single = dl.LinearNetwork((1, 1), [[2.0]])
    assert dl.as_run(single, [0.0], [[np.ones((1, 1))]]).arrangement == "as given"


def test_dicts_of_square_layers_are_decided_by_the_caller_or_the_loss():
    layers = snapshots(SQUARE)
    run = dl.as_run(SQUARE, STEPS, layers)
    for words, orientation in [("as given", "out_in"), ("transposed", "in_out")]:
        given = [named(ARRANGED[words](snapshot), "W{}") for snapshot in layers]
        with pytest.raises(ValueError, match="^layers: at time 0: .* give orientation='out_in'"):
            dl.as_run(SQUARE, STEPS, given)
        said = dl.as_run(SQUARE, STEPS, given, orientation=orientation)
        told = dl.as_run(SQUARE, STEPS, given, loss=run.loss)
        assert told.arrangement == f"{words}, checked by the loss"
        for found in (said, told):
            assert found.state.identical(run.state)
    weight = [named(snapshot) for snapshot in layers]
    assert dl.as_run(SQUARE, STEPS, weight).arrangement == "as given"
    net = naive.random_network((3, 4, 4, 3), 2)
    back = [{f"W{3 - i}": w for i, w in enumerate(snapshot)} for snapshot in snapshots(net)]
    assert dl.as_run(net, STEPS, back).arrangement == "transposed, not checked"


@pytest.mark.parametrize("words", ARRANGED)
def test_a_recorder_with_losses_puts_square_layers_right(words, monkeypatch):
    monkeypatch.setattr("dlnds.runs.imported.BUFFER", 2 * SQUARE.dim)
    layers = snapshots(SQUARE)
    run = dl.as_run(SQUARE, STEPS, layers, loss=dl.as_run(SQUARE, STEPS, layers).loss)
    record = dl.Recorder(SQUARE)
    for step, snapshot, loss in zip(STEPS, layers, run.loss.values, strict=True):
        record(step, ARRANGED[words](snapshot), loss=Tensor(loss))
    found = record.run()
    assert found.state.identical(run.state)
    assert found.arrangement == f"{words}, checked by the loss"
    assert record.run(save=("product",)).arrangement == found.arrangement
    with pytest.raises(ValueError, match="^loss: is needed at all times or at none"):
        record(2000, layers[0])


def test_a_recorder_refuses_weights_of_other_losses():
    record = dl.Recorder(SQUARE)
    record(0.0, snapshots(SQUARE)[0], loss=1e3)
    for _ in range(2):
        with pytest.raises(ValueError, match="^loss: is not that of the weights"):
            record.run()
    told = dl.Recorder(SQUARE, orientation="in_out")
    told(0.0, {f"W{i}": w.T for i, w in enumerate(snapshots(SQUARE)[0])})
    assert np.array_equal(told.run().state[0], SQUARE.pack(snapshots(SQUARE)[0]))


def test_numbers_and_stacks_are_taken_or_explained():
    net = dl.LinearNetwork((1, 1, 1), [[2.0]])
    weights = {"W1": np.ones((1, 1)), "W2": 2.0 * np.ones((1, 1))}
    _, layers = dl.read_checkpoints([weights])
    assert [float(w[0, 0]) for w in layers[0]] == [1.0, 2.0]
    assert dl.as_run(net, [0.0], [weights]).state.values.tolist() == [[1.0, 2.0]]
    stacks = [np.stack(parts) for parts in zip(*snapshots(NET), strict=True)]
    for times in (STEPS, STEPS[:3]):
        with pytest.raises((ValueError, TypeError), match=r"^layers: .*zip\(W_1, …, W_h\)"):
            dl.as_run(NET, times, stacks)


def test_ways_that_are_the_same_need_no_decision():
    layers = [[c * np.diag([1.0, 2.0, 3.0])] * 3 for c in (0.1, 0.2)]
    run = dl.as_run(SQUARE, [0.0, 1.0], layers)
    found = dl.as_run(SQUARE, [0.0, 1.0], layers, loss=run.loss)
    assert found.arrangement == "as given, checked by the loss"


def test_single_precision_is_enough_to_tell():
    layers = [[w.astype(np.float32) for w in snapshot] for snapshot in snapshots(SQUARE)]
    sigma = SQUARE.target.astype(np.float32)
    loss = [0.5 * np.sum((sigma - c @ b @ a) ** 2, dtype=np.float32) for a, b, c in layers]
    found = dl.as_run(SQUARE, STEPS, [[w.T for w in s] for s in layers], loss=loss)
    assert found.arrangement == "transposed, checked by the loss"


def test_losses_of_other_networks_are_compared_too():
    net = dl.LossNetwork((3, 3, 3, 1), dl.losses.logistic(DATA[0], np.sign(DATA[1][0]).astype(int)))
    layers = snapshots(net)
    run = dl.as_run(net, STEPS, layers)
    swapped = [[b, a, c] for a, b, c in layers]
    assert dl.as_run(net, STEPS, layers, loss=run.loss).recorded_loss == "loss"
    for given, loss in [(swapped, run.loss), (layers, 2.0 * run.loss)]:
        with pytest.raises(ValueError, match="^loss: is not that of the weights"):
            dl.as_run(net, STEPS, given, loss=loss)


# Inputs and losses of data.


def on_data(W, factor):
    X, Y = DATA[0], DATA[1] + DATA[0] ** 2
    return factor * np.sum((Y - W @ X) ** 2) / X.shape[1]


def test_weights_of_original_inputs_are_taken_to_whitened_ones():
    rng = np.random.default_rng(3)
    layers = [[rng.normal(size=(4, 3)), rng.normal(size=(3, 4))] for _ in STEPS]
    maps = [b @ a for a, b in layers]
    for factor, words in [(0.5, "loss"), (1.0, "2 (loss"), (1.0 / 3.0, "0.666667 (loss")]:
        loss = [on_data(W, factor) for W in maps]
        run = dl.as_run(WHITENED, STEPS, layers, loss=loss, save=("product",))
        assert run.arrangement == "as given from original inputs, checked by the loss"
        assert run.recorded_loss == f"{words} + irreducible_loss{')' * (factor != 0.5)}"
        np.testing.assert_allclose(WHITENED.unwhiten(run["product"].values), maps, rtol=1e-12)
    said = dl.as_run(WHITENED, STEPS, layers, inputs="original", save=("product",))
    assert said["product"].identical(run["product"])
    loss = [on_data(W, 0.5) - WHITENED.irreducible_loss for W in maps]
    np.testing.assert_allclose(said.loss, loss, rtol=1e-12, atol=1e-12)
    plain = dl.as_run(WHITENED, STEPS, layers, save=("product",))
    np.testing.assert_array_equal(plain["product"], maps)
    whitened = dl.as_run(WHITENED, STEPS, layers, inputs="whitened", save=("product",))
    assert whitened.identical(plain)


def test_the_shape_of_the_first_layer_tells_its_inputs():
    X = np.concatenate([DATA[0], DATA[0][:1] - DATA[0][1:2]])  # of rank 3
    net = dl.LinearNetwork.from_data(X, DATA[1], hidden=(5,))
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 5))
    run = dl.as_run(net, [0.0], [[a, b]])
    assert run.arrangement == "as given from original inputs"
    loss = 0.5 * np.sum((DATA[1] - b @ a @ X) ** 2) / 40 - net.irreducible_loss
    np.testing.assert_allclose(run.loss, loss, rtol=1e-12)


def test_raw_and_given_networks_have_one_kind_of_inputs():
    raw = dl.LinearNetwork.from_data(DATA[0], DATA[1], hidden=(4,), whiten=False)
    layers = [[np.ones((4, 3)), np.ones((3, 4))]]
    run = dl.as_run(raw, [0.0], layers, inputs="original", orientation="out_in")
    assert run.arrangement == "as given"
    for net, word in [(raw, "whitened"), (NET, "original")]:
        with pytest.raises(ValueError, match="^inputs: "):
            dl.as_run(net, [0.0], layers, inputs=word)


# Symmetry.


def test_imported_observables_do_not_see_bases_of_hidden_layers():
    layers = snapshots(NET)
    P, Q = (scipy.stats.ortho_group.rvs(4, random_state=seed) for seed in (0, 1))
    turned = [[P @ a, Q @ b @ P.T, c @ Q.T] for a, b, c in layers]
    names = ("singular_value", "imbalance", "product", "gradient_norm", "mode_strength")
    names += ("layer_singular_value", "ntk_distance", "sharpness")
    run, same = (dl.as_run(NET, STEPS, rows, save=names) for rows in (layers, turned))
    for name in ("loss", "loss_rate", *names):
        size = float(np.abs(run[name]).max())
        np.testing.assert_allclose(same[name], run[name], rtol=1e-12, atol=1e-13 * size)
    back = dl.as_run(NET, STEPS, turned)
    for state, snapshot in zip(back.state.values, layers, strict=True):
        np.testing.assert_allclose(dl.act(NET, [P.T, Q.T], state), NET.pack(snapshot), atol=1e-14)


# Recording.


@pytest.mark.parametrize("save", [SAVE, SAVE[1:]])
def test_a_recorded_run_is_that_of_its_weights(save):
    layers = snapshots(NET)
    record = dl.Recorder(NET, save=save)
    here = [w.copy() for w in layers[0]]
    for step, snapshot in zip(STEPS, layers, strict=True):
        for w, new in zip(here, snapshot, strict=True):
            w[:] = new
        record.record(step, named(here) if step > 60 else iter(here))
    for w in here:
        w[:] = 0.0
    assert record.run().identical(dl.as_run(NET, STEPS, layers, save=save))
    if "state" in save:
        other = dl.as_run(NET, STEPS, layers, save=("mode_strength",))
        assert record.run(save=("mode_strength",)).identical(other)
    else:
        with pytest.raises(ValueError, match="^save: weights are not kept"):
            record.run(save=("mode_strength",))


def test_a_recorder_refuses_at_once_and_goes_on():
    for name, options in [("save", {"save": ("nothing",)}), ("inputs", {"inputs": "original"})]:
        with pytest.raises(ValueError, match=f"^{name}: "):
            dl.Recorder(NET, **options)
    record, (first, second, *_) = dl.Recorder(NET), snapshots(NET)
    with pytest.raises(ValueError, match="^save: there is nothing yet"):
        record.run()
    record.record(0.0, first)
    for name, time, layers in [
        ("time", 0.0, second),
        ("time", np.nan, second),
        ("layers", 1.0, second[:2]),
        ("layers", 1.0, [w * np.nan for w in second]),
        ("layers", 1.0, [w.T for w in second]),
        ("layers", 1.0, [*second, np.ones(2)]),
        ("layers", 1.0, 3),
        ("layers", 1.0, {"fc.bias": np.ones(3)}),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            record.record(time, layers)
    record.record(1.0, second)
    assert record.run().identical(dl.as_run(NET, [0.0, 1.0], [first, second]))


# Bad input.


def test_bad_files_are_named(tmp_path):
    good = named(snapshots(NET)[0])
    write_npz(tmp_path / "step_0.npz", good)

    def beside(name, arrays, words, write=write_npz):
        write(tmp_path / name, arrays)
        with pytest.raises(ValueError, match=words) as caught:
            list(dl.read_checkpoints(tmp_path)[1])
        assert name in str(caught.value)
        (tmp_path / name).unlink()

    spoilt = {**good, "fc1.weight": np.where(np.eye(4), np.nan, 1.0)}
    beside("step_1.npz", spoilt, r"^layers: .*step_1.npz: layer 2, 'fc1.weight': needs finite")
    missing = {name: good[name] for name in ("fc0.weight", "fc1.weight")}
    beside("step_1.npz", missing, "^source: .*has no layer 'fc2.weight'")
    beside("step_1.npz", {**good, "fc3.weight": np.ones((3, 2))}, "^source: .*'fc3.weight'")
    shapes = {**good, "fc2.weight": np.ones((1, 4))}
    beside("step_1.npz", shapes, r"^source: .*\(1, 4\), after \(2, 4\) in .*step_0.npz")
    beside("at_0.npz", good, "^source: step 0 repeats, in ")
    beside("final.npz", good, "^source: .*final.npz does not tell its step")
    biased = {**good, "fc0.bias": np.ones(4)}
    write_npz(tmp_path / "step_0.npz", {**good, "fc0.bias": np.zeros(4)})
    beside("step_1.npz", biased, "^layers: .*'fc0.bias' is not zero; networks here have no biases")
    write_npz(tmp_path / "step_0.npz", good)
    objects = {**good, "note": np.array([{}], object)}
    beside("step_1.npz", objects, "^source: .*'note.npy' of dtype object")
    for suffix in WRITERS:
        cut = f"step_1{suffix}"
        WRITERS[suffix](tmp_path / cut, good)
        data = (tmp_path / cut).read_bytes()
        beside(
            cut, data[: len(data) // 2], "^(source|layers): ", write=lambda p, d: p.write_bytes(d)
        )
        beside(cut, b"", "^source: ", write=lambda p, d: p.write_bytes(d))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "source: needs a folder"),
        ([], "source: needs a folder"),
        ("nowhere", "source: there is no file nowhere"),
        (["nowhere.npz"], "source: there is no file"),
        (__file__, "source: .* is none of the kinds .npz"),
        ({}, "source: the dict: holds no matrix"),
        ({"a": "text", "b": None}, "source: the dict: holds no matrix"),
        ({"W1": np.ones((2, 3)), "W2": np.ones((4, 5))}, "source: .*do not follow one another"),
        ({"a": np.ones((2, 3)), "b": np.ones((3, 2))}, "source: .*does not tell the order"),
        ({c: np.ones((2, 2)) for c in "abcdefgh"}, "source: .*too many layers without numbers"),
        ([{"W1": np.ones((2, 3))}, 3], "source: needs a folder"),
        ({10**30: {"0.weight": np.ones((2, 3))}}, "source: the step of .* is no number"),
    ],
)
def test_what_names_and_shapes_do_not_tell_is_refused(source, words):
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        dl.read_checkpoints(source)


def test_options_are_checked_by_name():
    source = {f"step_{n}": named(snapshot) for n, snapshot in enumerate(snapshots(NET))}
    for option in [
        {"step_size": 0.0},
        {"step_size": np.nan},
        {"step_size": 1e308},
        {"steps": [0, 1]},
        {"steps": [0, 0, 1, 2]},
        {"names": ["a", "a"]},
        {"names": []},
        {"names": "fc0.weight"},
        {"orientation": "sideways"},
        {"orientation": 3},
    ]:
        name = "source" if option == {"steps": [0, 0, 1, 2]} else next(iter(option))
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            dl.read_checkpoints(source, **option)
    with pytest.raises(ValueError, match="^source: .*has no layer 'nothing'; it holds"):
        dl.read_checkpoints(source, names=["nothing"])


@pytest.mark.parametrize(
    ("stems", "steps"),
    [
        (["model_v2_at_10", "model_v2_at_9"], [10, 9]),
        (["epoch=1-step=20", "epoch=1-step=40"], [20, 40]),
        (["ckpt-000100", "ckpt-000007"], [100, 7]),
        (["step_5_loss_0.25", "step_6_loss_0.31"], [5, 6]),
        (["ckpt_2k", "ckpt_500"], [2000, 500]),
        (["ckpt_1.5M", "ckpt_20K"], [1500000, 20000]),
        (["net_10ksteps", "net_2ksteps"], [10000, 2000]),
        (["step_1e3", "step_2e2"], [1000, 200]),
        (["step_3", "step_-2"], [3, -2]),
        (["7", "-9"], [7, -9]),
        (["step-3", "step-2"], [3, 2]),
    ],
)
def test_steps_are_the_numbers_that_names_mean(stems, steps, tmp_path):
    layers = snapshots(NET)[:2]
    for stem, snapshot in zip(stems, layers, strict=True):
        write_npz(tmp_path / f"{stem}.npz", named(snapshot))
    times, weights = dl.read_checkpoints(tmp_path)
    assert times.tolist() == sorted(steps)
    assert np.array_equal(weights[0][0], layers[int(np.argmin(steps))][0])


@pytest.mark.parametrize(
    "stems",
    [
        ("ckpt_500", "ckpt_1m"),
        ("ckpt_1m", "ckpt_2m"),
        ("step_500", "step_1_000"),
        ("epoch_0.5", "epoch_1.5"),
        ("step_1e-2", "step_1e-3"),
        ("5epochs", "100steps"),
    ],
)
def test_numbers_in_doubt_are_no_steps(stems, tmp_path):
    for stem in stems:
        write_npz(tmp_path / f"{stem}.npz", named(snapshots(NET)[0]))
    with pytest.raises(ValueError, match=r"^source: .*\.npz does not tell its step; give steps="):
        dl.read_checkpoints(tmp_path)


def test_files_in_doubt_are_in_no_order_for_steps(tmp_path):
    layers = snapshots(NET)[:2]
    paths = [tmp_path / f"ckpt_{stem}.npz" for stem in ("500", "1m")]
    for path, snapshot in zip(paths, layers, strict=True):
        write_npz(path, named(snapshot))
    with pytest.raises(ValueError, match="^source: the order of the files in .* such as 1m"):
        dl.read_checkpoints(tmp_path, steps=[500, 1e6])
    times, weights = dl.read_checkpoints(paths, steps=[500, 1e6])
    assert times.tolist() == [500.0, 1e6]
    assert np.array_equal(weights[0][0], layers[0][0])
    write_npz(tmp_path / "ckpt_2m.npz", named(layers[0]))
    paths[0].unlink()
    assert dl.read_checkpoints(tmp_path, steps=[1e6, 2e6])[0].tolist() == [1e6, 2e6]


def test_floats_as_keys_are_times():
    layers = snapshots(NET)[:2]
    source = {0.9: named(layers[1]), np.float32(-0.5): named(layers[0])}
    times, weights = dl.read_checkpoints(source)
    assert times.tolist() == [-0.5, 0.9]
    assert np.array_equal(weights[1][2], layers[1][2])
    times, _ = dl.read_checkpoints({np.int64(-5): named(layers[0]), 1.5: named(layers[1])})
    assert times.tolist() == [-5.0, 1.5]
    for key in (np.nan, np.inf):
        with pytest.raises(ValueError, match="^source: the step of 'time=.* is no number"):
            dl.read_checkpoints({0.0: named(layers[0]), key: named(layers[1])})
    with pytest.raises(ValueError, match="^source: the step of 'step_0.5' .* is no number"):
        dl.read_checkpoints({"step_0.5": named(layers[0]), "step_1.5": named(layers[1])})
    with pytest.raises(ValueError, match="^source: .*not lists of numbers"):
        dl.read_checkpoints({"W1": [[1.0, 2.0]], "W2": [[1.0], [2.0]]})


def test_each_checkpoint_may_have_a_folder(tmp_path):
    layers = snapshots(NET)
    for step, snapshot in zip(STEPS, layers, strict=True):
        (tmp_path / f"checkpoint-{step}").mkdir()
        write_safetensors(tmp_path / f"checkpoint-{step}" / "model.safetensors", named(snapshot))
    run = dl.as_run(NET, STEPS, layers)
    for source in (tmp_path, sorted(tmp_path.glob("*/*"))):
        assert dl.as_run(NET, *dl.read_checkpoints(source)).identical(run)


def test_files_without_clear_steps_take_those_of_the_caller(tmp_path):
    layers = snapshots(NET)[:2]
    for stem, snapshot in zip(("1_of_2", "2_of_3"), layers, strict=True):
        write_npz(tmp_path / f"{stem}.npz", named(snapshot))
    with pytest.raises(ValueError, match="^source: .*give steps="):
        dl.read_checkpoints(tmp_path)
    times, weights = dl.read_checkpoints(tmp_path, steps=[7, 3])
    assert times.tolist() == [3.0, 7.0]
    assert np.array_equal(weights[0][0], layers[1][0])


def test_folders_and_headers_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(ValueError, match="^source: the folder .* has no file of the kinds .npz"):
        dl.read_checkpoints(tmp_path)
    (tmp_path / "step_1.npz").mkdir()
    with pytest.raises(ValueError, match="^source: .*step_1.npz: cannot be opened"):
        dl.read_checkpoints(tmp_path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="^source: .*its header is too long"):
        dl.read_checkpoints(path)
    about = {"dtype": "F8_E4M3", "shape": [2, 3], "data_offsets": [0, 6]}
    text = json.dumps({"0.weight": about}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(6))
    with pytest.raises(ValueError, match="^layers: .*the dtype F8_E4M3"):
        list(dl.read_checkpoints(path)[1])


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"0.weight": {"dtype": "F32", "shape": [2, 3]}},
        {"0.weight": {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]}},
        {"0.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]}},
        {"0.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]}},
        {
            "0.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "1.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]},
        },
    ],
)
def test_broken_safetensors_are_refused_when_they_are_listed(header, tmp_path):
    text = json.dumps(header).encode()
    path = tmp_path / "step_1.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    with pytest.raises(ValueError, match="^source: .*step_1.*: is no whole file of safetensors"):
        dl.read_checkpoints(tmp_path)


def test_weights_that_vanish_after_they_were_listed_are_named(tmp_path):
    layers = named(snapshots(NET)[0])
    write_npz(tmp_path / "step_1.npz", layers)
    _, weights = dl.read_checkpoints(tmp_path)
    assert repr(weights) == "Checkpoints(1 of layers (4, 3), (4, 4), (2, 4))"
    write_npz(tmp_path / "step_1.npz", {"fc0.weight": layers["fc0.weight"]})
    with pytest.raises(
        ValueError, match="^layers: .*step_1.npz: layer 2, 'fc1.weight' is there no"
    ):
        weights[0]
    (tmp_path / "step_1.npz").unlink()
    with pytest.raises(ValueError, match="^layers: .*step_1.npz: cannot be opened"):
        weights[0]


# torch's pickles.


class Command:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("made-by-a-pickle",))


def test_nothing_in_a_pickle_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = named(snapshots(NET)[0])
    write_torch(tmp_path / "a_1.pt", layers, alter=lambda d: {**d, "more": Command()})
    with pytest.raises(
        ValueError, match=r"^source: .*holds (posix|nt|os).mkdir, which only Python"
    ):
        dl.read_checkpoints(tmp_path / "a_1.pt")
    assert not (tmp_path / "made-by-a-pickle").exists()
    np.savez(tmp_path / "a_1.npz", W1=np.array([Command()], object))
    with pytest.raises(ValueError, match="^source: .*dtype object"):
        dl.read_checkpoints(tmp_path / "a_1.npz")
    assert not (tmp_path / "made-by-a-pickle").exists()


def test_files_of_old_torch_and_whole_models_are_refused_with_a_remedy(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"W": [1.0]}))
    with pytest.raises(ValueError, match=r"^source: .*is no zip archive.*safetensors"):
        dl.read_checkpoints(tmp_path / "a.pt")
    write_torch(tmp_path / "b.pt", {}, alter=lambda _: types.SimpleNamespace(weight=1.0))
    with pytest.raises(ValueError, match=r"^source: .*SimpleNamespace.*model.state_dict"):
        dl.read_checkpoints(tmp_path / "b.pt")
    write_npz(tmp_path / "c.npz", {"W": np.eye(2)})
    (tmp_path / "c.npz").rename(tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"^source: .*none that torch.save writes"):
        dl.read_checkpoints(tmp_path / "c.pth")


@pytest.mark.parametrize("protocol", [2, 4])
def test_dicts_and_lists_around_weights_are_read_of_either_protocol(protocol, tmp_path):
    layers = snapshots(NET)[0]
    group = {"lr": 0.1, "betas": (0.9, 0.999, 0, 1), "params": [0, 1, 2], "more": [()], "on": True}
    model = named([Trained(w) for w in layers])
    whole = {"optimizer": {"param_groups": [group]}, "best": None, "model": model}
    write_torch(tmp_path / "a.pt", {**whole, "single": [np.array(2.0)]}, protocol=protocol)
    _, weights = dl.read_checkpoints(tmp_path / "a.pt")
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], layers, strict=True))


def test_tensors_beyond_their_numbers_are_refused(tmp_path):
    for part, value in [(1, 2), (1, -1), (2, (5, 3)), (3, (4, 1)), (3, (-3, 1))]:
        spoil = {part: value}
        write_torch(
            tmp_path / "a.pt",
            {"0.weight": np.ones((4, 3))},
            spoil=lambda parts, spoil=spoil: tuple(spoil.get(i, p) for i, p in enumerate(parts)),
        )
        with pytest.raises(ValueError, match="^layers: .*a.pt: has a tensor "):
            list(dl.read_checkpoints(tmp_path / "a.pt")[1])


@pytest.mark.parametrize("thing", [{1, 2}, b"text", 1j, np.ones(1, complex)])
def test_instructions_that_no_weights_need_are_refused(thing, tmp_path):
    write_torch(tmp_path / "a.pt", {"0.weight": np.ones((4, 3)), "more": thing}, protocol=4)
    with pytest.raises(ValueError, match="^source: .*a.pt: (has|holds) "):
        dl.read_checkpoints(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_all_floats_are_read_and_views_too(suffix, tmp_path):
    W1, W2 = np.arange(12.0).reshape(4, 3) - 5.0, np.arange(8.0).reshape(2, 4)
    upper = (W1.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # bfloat16
    arrays = {"0.weight": upper, "1.weight": W2.astype(np.float32)}
    if suffix == ".pt":
        arrays["1.weight"] = np.asfortranarray(arrays["1.weight"])
    WRITERS[suffix](tmp_path / f"a{suffix}", arrays)
    _, weights = dl.read_checkpoints(tmp_path / f"a{suffix}")
    assert np.array_equal(weights[0][0], W1)  # small integers are exact in bfloat16
    assert np.array_equal(weights[0][1], W2)


def test_torch_writes_what_is_read_here(tmp_path):
    torch = pytest.importorskip("torch")
    layers = snapshots(NET)[0]
    for form in (named(layers), {"model": named(layers), "optimizer": {"lr": 0.1}}):
        copied = {k: torch.tensor(v) if hasattr(v, "shape") else v for k, v in form.items()}
        torch.save(copied, tmp_path / "a_3.pt")
        if "model" not in form:
            times, weights = dl.read_checkpoints(tmp_path / "a_3.pt")
            assert times.tolist() == [3.0]
            assert all(np.array_equal(a, b) for a, b in zip(weights[0], layers, strict=True))
    tensors = [torch.nn.Parameter(torch.tensor(w)) for w in layers]
    assert dl.as_run(NET, [0], [tensors]).identical(dl.as_run(NET, [0], [layers]))


# Memory.


@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_change_nothing(rows, monkeypatch):
    layers = snapshots(SQUARE)
    run = dl.as_run(SQUARE, STEPS, layers, save=SAVE)
    monkeypatch.setattr("dlnds.runs.imported.BUFFER", rows * SQUARE.dim)
    given = ([w.T for w in snapshot] for snapshot in layers)
    found = dl.as_run(SQUARE, STEPS, given, loss=run.loss, save=SAVE)
    assert found.arrangement == "transposed, checked by the loss"
    record = dl.Recorder(SQUARE, save=SAVE)
    for step, snapshot in zip(STEPS, layers, strict=True):
        record.record(step, snapshot)
        record.run()  # looks in between
    for other in (found, record.run()):
        for name, values in run.data_vars.items():
            size = float(np.abs(values).max())
            np.testing.assert_allclose(other[name], values, rtol=1e-12, atol=1e-13 * size)
    with pytest.raises(ValueError, match="^loss: is not that of .*as given: off by .*transposed"):
        dl.as_run(SQUARE, STEPS, [*layers[1:], layers[0]], loss=run.loss)


def test_memory_is_that_of_one_checkpoint(tmp_path):
    net = naive.random_network((100, 100, 100), 0)  # 160 kB each
    n_files, size = 200, 8 * net.dim
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(100, 100)) for _ in range(2)]
    for step in range(n_files):
        write_npz(tmp_path / f"step_{step}.npz", named([(step + 1.0) / 100 * w for w in layers]))
    times, weights = dl.read_checkpoints(tmp_path)
    dl.as_run(net, times[:2], weights[:2], save=("singular_value",))
    gc.collect()
    tracemalloc.start()
    try:
        run = dl.as_run(net, times, weights, save=("singular_value",))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A block of 2^18 numbers in hand (14 checkpoints of 20000), and what is computed of it.
    assert run.sizes["time"] == n_files
    assert 5 * size < peak < 0.5 * n_files * size

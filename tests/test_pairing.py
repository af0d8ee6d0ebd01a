"""Which parameter is which: by value, by structure, and every planted wrong map is named."""

from __future__ import annotations

import numpy as np
import pytest

from harness.case import HarnessError
from harness.pairing import Pairing, candidate_maps, pair_parameters, transfer_values
from harness.views import put, see, see_value
from tests.pairing_models import Built, built

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def pair(reference: Built, candidate: Built, given=None) -> Pairing:
    return pair_parameters(reference.parameters, candidate.parameters, reference.values, candidate.values, given)


def links(pairing: Pairing) -> list[tuple[str, str, str, bool]]:
    return [(link.name, link.candidate.parameter, link.how, link.expected) for link in pairing.links]


def causes(pairing: Pairing) -> list[tuple[str, str]]:
    return [(note.parameter, note.cause) for note in pairing.notes]


def assert_carried(pairing: Pairing, reference: Built, candidate: Built) -> None:
    """Every expected link shows equal values, every other one does not."""
    for link in pairing.links:
        own, theirs = see_value(link.reference, reference.values), see_value(link.candidate, candidate.values)
        assert own.shape == theirs.shape
        assert np.array_equal(own, theirs) == link.expected, link.name


def assert_found(name: str, cause: str, reference: Built, candidate: Built) -> None:
    """One parameter was loaded wrongly: the link is the meant one, and the suspicion shows the map that was used."""
    pairing = pair(reference, candidate)
    assert causes(pairing) == [(name, cause)]
    assert_carried(pairing, reference, candidate)
    assert [link.name for link in pairing.links if not link.expected] == [name]
    note = pairing.notes[0]
    link = next(link for link in pairing.links if link.name == name)
    if note.view is not None and not link.candidate.added:
        loaded = see(note.view, candidate.values[link.candidate.parameter])
        np.testing.assert_array_equal(loaded, see_value(link.reference, reference.values))
    moved = transfer_values(pairing, reference.values, candidate.parameters, candidate.values)
    right = pair_parameters(reference.parameters, candidate.parameters, reference.values, moved)
    assert all(link.expected for link in right.links)


def dense_pair(n: int, m: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    kernel, bias = normal(m, n), normal(m)
    return {"kernel": kernel, "bias": bias}, {"kernel": kernel.T.copy(), "bias": bias}


def test_a_chain_of_layers_by_value() -> None:
    layers = [dense_pair(n, m) for n, m in ((3, 8), (8, 8), (8, 8), (8, 2))]
    reference = built("pytorch", *((f"{2 * i}", "Dense", own) for i, (own, _) in enumerate(layers)))
    candidate = built("keras", *((f"dense_{i}", "Dense", theirs) for i, (_, theirs) in enumerate(layers)))
    pairing = pair(reference, candidate)
    assert links(pairing) == [
        (f"{2 * i}.{role}", f"dense_{i}.{role}", "value", True) for i in range(4) for role in ("kernel", "bias")
    ]
    assert pairing.notes == pairing.unmatched_reference == pairing.unmatched_candidate == ()
    assert_carried(pairing, reference, candidate)


def test_layers_defined_in_another_order() -> None:
    query, key, value = (dense_pair(6, 6) for _ in range(3))
    reference = built("pytorch", ("query", "Dense", query[0]), ("key", "Dense", key[0]), ("value", "Dense", value[0]))
    candidate = built("keras", ("v", "Dense", value[1]), ("q", "Dense", query[1]), ("k", "Dense", key[1]))
    pairing = pair(reference, candidate)
    assert [(link.reference.parameter, link.candidate.parameter) for link in pairing.links[::2]] == [
        ("query.kernel", "q.kernel"),
        ("key.kernel", "k.kernel"),
        ("value.kernel", "v.kernel"),
    ]
    assert pairing.notes == ()


@pytest.mark.parametrize(
    ("own_names", "their_names"), [(("fc1", "fc2"), ("fc1", "fc2")), (("0", "2"), ("dense", "dense_1"))]
)
def test_two_layers_with_each_others_weights(own_names: tuple[str, str], their_names: tuple[str, str]) -> None:
    one, two = dense_pair(6, 6), dense_pair(6, 6)
    reference = built("pytorch", (own_names[0], "Dense", one[0]), (own_names[1], "Dense", two[0]))
    candidate = built("keras", (their_names[0], "Dense", two[1]), (their_names[1], "Dense", one[1]))
    pairing = pair(reference, candidate)
    assert [link.candidate.parameter for link in pairing.links[::2]] == [f"{name}.kernel" for name in their_names]
    assert not any(link.expected for link in pairing.links)
    assert {note.cause for note in pairing.notes} == {"weight-order-mismatch"}
    assert len(pairing.notes) == 4


def test_zeros_and_ones_follow_their_layers() -> None:
    kernels = [normal(8, 8) for _ in range(3)]

    def layer(kernel: np.ndarray) -> dict[str, np.ndarray]:
        return {"kernel": kernel, "bias": np.zeros(8, np.float32)}

    reference = built("pytorch", *((f"l{i}", "Dense", layer(kernel)) for i, kernel in enumerate(kernels)))
    candidate = built(
        "keras", *((name, "Dense", layer(kernels[i].T.copy())) for name, i in (("c", 2), ("a", 0), ("b", 1)))
    )
    pairing = pair(reference, candidate)
    assert [(link.name, link.candidate.parameter) for link in pairing.links if "bias" in link.name] == [
        ("l0.bias", "a.bias"),
        ("l1.bias", "b.bias"),
        ("l2.bias", "c.bias"),
    ]
    assert all(link.how == "structure" and link.expected for link in pairing.links if "bias" in link.name)
    assert pairing.notes == ()


def test_a_bias_on_one_side_only() -> None:
    own, theirs = dense_pair(4, 5)
    del theirs["bias"]
    for reference, candidate in (
        (built("pytorch", ("fc", "Dense", own)), built("keras", ("dense", "Dense", theirs))),
        (built("keras", ("dense", "Dense", theirs)), built("pytorch", ("fc", "Dense", own))),
    ):
        pairing = pair(reference, candidate)
        assert len(pairing.links) == 1
        lone = [*pairing.unmatched_reference, *pairing.unmatched_candidate]
        assert [(note.parameter, note.cause) for note in lone] == [("fc.bias", "bias-missing")]


def test_a_layer_on_one_side_only() -> None:
    layers = [dense_pair(4, 4) for _ in range(3)]
    reference = built("pytorch", *((f"l{i}", "Dense", own) for i, (own, _) in enumerate(layers)))
    candidate = built("keras", *((f"d{i}", "Dense", layers[i][1]) for i in (0, 2)))
    pairing = pair(reference, candidate)
    assert [link.candidate.parameter for link in pairing.links] == ["d0.kernel", "d0.bias", "d2.kernel", "d2.bias"]
    assert [note.cause for note in pairing.unmatched_reference] == ["layer-missing"] * 2
    assert pairing.notes == ()


def test_order_alone_that_could_be_otherwise_is_said() -> None:
    layers = [dense_pair(4, 4) for _ in range(3)]
    reference = built("pytorch", *((f"a{i}", "Dense", own) for i, (own, _) in enumerate(layers)))
    candidate = built("keras", *((f"b{i}", "Dense", {k: v + 1 for k, v in layers[i][1].items()}) for i in (0, 2)))
    pairing = pair(candidate, reference)
    assert sum("would do as well" in note.text for note in pairing.notes) == 2


def test_untransferred_weights_are_paired_in_order() -> None:
    shapes = [(3, 8), (8, 8), (8, 8), (8, 2)]
    reference = built("pytorch", *((f"l{i}", "Dense", dense_pair(*shape)[0]) for i, shape in enumerate(shapes)))
    candidate = built("keras", *((f"d{i}", "Dense", dense_pair(*shape)[1]) for i, shape in enumerate(shapes)))
    pairing = pair(reference, candidate)
    assert [link.candidate.parameter for link in pairing.links[::2]] == [f"d{i}.kernel" for i in range(4)]
    assert all(link.how == "structure" and not link.expected for link in pairing.links)
    assert {note.cause for note in pairing.notes} == {"weights-not-transferred"}
    moved = transfer_values(pairing, reference.values, candidate.parameters, candidate.values)
    np.testing.assert_array_equal(moved["d1.kernel"], reference.values["l1.kernel"].T)
    assert not np.shares_memory(moved["d1.kernel"], candidate.values["d1.kernel"])


def test_untransferred_layers_of_one_size_are_paired_by_equal_names() -> None:
    """A functional model lists its layers in another order than it was written in."""
    reference = built("pytorch", *((f"encoder.{name}", "Dense", dense_pair(4, 3)[0]) for name in ("mean", "spread")))
    candidate = built("keras", *((name, "Dense", dense_pair(4, 3)[1]) for name in ("spread", "mean")))
    pairing = pair(reference, candidate)
    found = {(link.reference.parameter, link.candidate.parameter) for link in pairing.links}
    assert found == {(f"encoder.{n}.{role}", f"{n}.{role}") for n in ("mean", "spread") for role in ("kernel", "bias")}


def test_a_last_norm_without_a_number_is_not_the_first() -> None:
    fresh = {"gamma": np.ones(8, np.float32), "beta": np.zeros(8, np.float32)}
    names = ("norm1", "norm2", "norm"), ("layer_norm", "layer_norm_1", "layer_norm_2")
    models = [
        built(framework, *((name, "LayerNorm", fresh) for name in of))
        for framework, of in zip(("pytorch", "keras"), names, strict=True)
    ]
    expected = [(f"{a}.{role}", f"{b}.{role}") for a, b in zip(*names, strict=True) for role in ("gamma", "beta")]
    there = [(link.reference.parameter, link.candidate.parameter) for link in pair(models[0], models[1]).links]
    back = [(link.candidate.parameter, link.reference.parameter) for link in pair(models[1], models[0]).links]
    assert there == back == expected


def test_near_values_are_called_near() -> None:
    own, theirs = dense_pair(4, 5)
    theirs["kernel"] = theirs["kernel"] + np.float32(1e-4)
    pairing = pair(built("pytorch", ("fc", "Dense", own)), built("keras", ("dense", "Dense", theirs)))
    assert causes(pairing) == [("fc.kernel", "")]
    assert "differ by up to 0.0001" in pairing.notes[0].text


def test_an_untransposed_square_kernel() -> None:
    own, theirs = dense_pair(6, 6)
    theirs["kernel"] = own["kernel"].copy()
    reference, candidate = built("pytorch", ("fc", "Dense", own)), built("keras", ("dense", "Dense", theirs))
    assert_found("fc.kernel", "weight-layout-transpose", reference, candidate)
    assert_found("dense.kernel", "weight-layout-transpose", candidate, reference)


def test_a_kernel_reshaped_instead_of_transposed() -> None:
    own, theirs = dense_pair(6, 4)
    theirs["kernel"] = own["kernel"].reshape(6, 4)
    reference, candidate = built("pytorch", ("fc", "Dense", own)), built("keras", ("dense", "Dense", theirs))
    assert_found("fc.kernel", "weight-layout-transpose", reference, candidate)


@pytest.mark.parametrize(
    ("op", "cause", "wrong"),
    [
        ("Conv", "conv-kernel-axes", lambda kernel: kernel.transpose(3, 2, 1, 0)),
        ("Conv", "conv-kernel-axes", lambda kernel: kernel.transpose(2, 3, 0, 1)),
        ("Conv", "conv-kernel-axes", lambda kernel: kernel.transpose(2, 3, 1, 0)[::-1, ::-1]),
        ("Conv", "conv-kernel-axes", lambda kernel: kernel.reshape(3, 3, 4, 4)),
        ("ConvTranspose", "convtranspose-kernel-flip", lambda kernel: kernel.transpose(2, 3, 1, 0)[::-1, ::-1]),
        ("ConvTranspose", "convtranspose-kernel-flip", lambda kernel: kernel.transpose(2, 3, 0, 1)),
        ("ConvTranspose", "conv-kernel-axes", lambda kernel: kernel.transpose(3, 2, 1, 0)),
    ],
)
def test_a_wrong_convolution_kernel(op: str, cause: str, wrong) -> None:
    kernel = normal(4, 4, 3, 3)
    reference = built("pytorch", ("conv", op, {"kernel": kernel, "bias": normal(4)}))
    theirs = {"kernel": np.ascontiguousarray(wrong(kernel)), "bias": reference.values["conv.bias"]}
    assert_found("conv.kernel", cause, reference, built("keras", ("conv2d", op, theirs)))


@pytest.mark.parametrize("torch_first", [True, False])
def test_depthwise_channels_counted_the_other_way(torch_first: bool) -> None:
    kernel = normal(6, 1, 3, 3)
    wrong = kernel.reshape(2, 3, 3, 3).transpose(2, 3, 1, 0).copy()
    own = built("pytorch", ("conv", "DepthwiseConv", {"kernel": kernel}))
    theirs = built("keras", ("dw", "DepthwiseConv", {"kernel": wrong}))
    sides = (own, theirs) if torch_first else (theirs, own)
    assert_found("conv.kernel" if torch_first else "dw.kernel", "conv-groups-order", *sides)


NORM: tuple[str, ...] = ("gamma", "beta", "moving_mean", "moving_variance")


def test_swapped_constants_of_a_norm_layer() -> None:
    fresh = {role: np.full(5, float(role in ("gamma", "moving_variance")), np.float32) for role in NORM}
    swapped = {**fresh, "moving_mean": fresh["moving_variance"], "moving_variance": fresh["moving_mean"]}
    pairing = pair(built("pytorch", ("bn", "BatchNorm", fresh)), built("keras", ("norm", "BatchNorm", swapped)))
    assert causes(pairing) == [
        ("bn.moving_mean", "weight-order-mismatch"),
        ("bn.moving_variance", "weight-order-mismatch"),
    ]
    zeroed = {**fresh, "gamma": fresh["beta"]}
    pairing = pair(built("pytorch", ("bn", "BatchNorm", fresh)), built("keras", ("norm", "BatchNorm", zeroed)))
    assert causes(pairing) == [("bn.gamma", "weights-not-transferred")]


def test_counters_are_no_parameters() -> None:
    arrays = {"gamma": normal(5), "moving_?": np.array(3)}
    model = built("pytorch", ("bn", "BatchNorm", arrays))
    other = built("keras", ("bn", "BatchNorm", {"gamma": arrays["gamma"]}))
    pairing = pair(model, other)
    assert len(pairing.links) == 1
    assert pairing.unmatched_reference == ()


def test_swapped_roles_of_a_norm_layer() -> None:
    arrays = {role: normal(5) for role in NORM}
    swapped = {**arrays, "moving_mean": arrays["moving_variance"], "moving_variance": arrays["moving_mean"]}
    pairing = pair(built("pytorch", ("bn", "BatchNorm", arrays)), built("keras", ("norm", "BatchNorm", swapped)))
    assert causes(pairing) == [
        ("bn.moving_mean", "weight-order-mismatch"),
        ("bn.moving_variance", "weight-order-mismatch"),
    ]
    assert [link.expected for link in pairing.links] == [True, True, False, False]
    assert "norm.moving_variance instead of norm.moving_mean" in pairing.notes[0].text


def gates(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return array.reshape(len(order), -1, *array.shape[1:])[list(order)].reshape(array.shape)


def test_lstm_gates_in_another_order() -> None:
    kernel, recurrent, bias = normal(16, 3), normal(16, 4), normal(16)
    own = {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias, "recurrent_bias": np.zeros(16, np.float32)}
    order = (0, 1, 3, 2)
    theirs = {
        "kernel": gates(kernel, order).T.copy(),
        "recurrent_kernel": gates(recurrent, order).T.copy(),
        "bias": gates(bias, order),
    }
    reference, candidate = built("pytorch", ("rnn", "LSTM", own)), built("keras", ("lstm", "LSTM", theirs))
    for one, other, words in ((reference, candidate, "i,f,o,c"), (candidate, reference, "i,f,o,g")):
        pairing = pair(one, other)
        assert {note.cause for note in pairing.notes} == {"rnn-gate-order"}
        assert len(pairing.notes) == 3
        assert not any(link.expected for link in pairing.links)
        assert all(f"gate order {words}" in note.text for note in pairing.notes), [n.text for n in pairing.notes]


def test_gru_kernels_whose_gates_were_not_swapped() -> None:
    own = {"kernel": normal(12, 3), "recurrent_kernel": normal(12, 4), "bias": normal(12), "recurrent_bias": normal(12)}
    theirs = {
        "kernel": own["kernel"].T.copy(),
        "recurrent_kernel": own["recurrent_kernel"].T.copy(),
        "bias": np.stack([own["bias"], own["recurrent_bias"]]),
    }
    pairing = pair(built("pytorch", ("rnn", "GRU", own)), built("keras", ("gru", "GRU", theirs)))
    assert [note.cause for note in pairing.notes] == ["rnn-gate-order"] * 4
    assert all("gate order r,z,h" in note.text for note in pairing.notes)


def test_gate_maps_of_one_place_mean_one_order() -> None:
    own = {"kernel": normal(12, 3), "recurrent_kernel": normal(12, 4), "bias": normal(12), "recurrent_bias": normal(12)}
    theirs = {"kernel": normal(3, 12), "recurrent_kernel": normal(4, 12), "bias": normal(2, 12)}
    reference, candidate = built("pytorch", ("rnn", "GRU", own)), built("keras", ("gru", "GRU", theirs))
    for one, other in ((reference, candidate), (candidate, reference)):
        pairing = pair(one, other)
        parameters = [{p.name: p for p in side.parameters} for side in (one, other)]
        words = []
        for link in pairing.links:
            maps = candidate_maps(
                link, parameters[0][link.reference.parameter], parameters[1][link.candidate.parameter]
            )
            words.append([view.said for cause, view in maps if cause == "rnn-gate-order"])
        assert len(words[0]) == 5
        assert words == [words[0]] * 4


def test_swapped_directions() -> None:
    def direction(way: str) -> dict[str, np.ndarray]:
        return {f"kernel{way}": normal(3, 16), f"recurrent_kernel{way}": normal(4, 16), f"bias{way}": normal(16)}

    arrays = {**direction(""), **direction("_reverse")}
    swapped = {name: arrays[name.removesuffix("_reverse") if "_rev" in name else f"{name}_reverse"] for name in arrays}
    pairing = pair(built("keras", ("bi", "LSTM", arrays)), built("keras", ("bidirectional", "LSTM", swapped)))
    assert [note.cause for note in pairing.notes] == ["weight-order-mismatch"] * 6


def test_levels_of_a_stacked_rnn_are_layers() -> None:
    def level(n: int) -> dict[str, np.ndarray]:
        return {
            "kernel": normal(16, n),
            "recurrent_kernel": normal(16, 4),
            "bias": normal(16),
            "recurrent_bias": normal(16),
        }

    levels = [level(4) for _ in range(3)]
    reference = built("pytorch", *(("rnn", "LSTM", arrays) for arrays in levels))
    parameters = [
        type(p)(name=f"rnn.{i}", shape=p.shape, layer="rnn", op=p.op, role=p.role, framework=p.framework)
        for i, p in enumerate(reference.parameters)
    ]
    values = {f"rnn.{i}": array for i, array in enumerate(array for one in levels for array in one.values())}
    theirs = [
        {
            "kernel": a["kernel"].T.copy(),
            "recurrent_kernel": a["recurrent_kernel"].T.copy(),
            "bias": a["bias"] + a["recurrent_bias"],
        }
        for a in levels
    ]
    candidate = built("keras", *((f"lstm_{i}", "LSTM", arrays) for i, arrays in enumerate(theirs)))
    pairing = pair(Built(parameters=parameters, values=values), candidate)
    assert len(pairing.links) == 9
    assert all(link.expected for link in pairing.links)
    assert pairing.unmatched_reference == pairing.notes == ()


def test_levels_named_by_their_roles() -> None:
    kernel, recurrent = normal(16, 4), normal(16, 4)
    own = {
        "kernel": normal(16, 4),
        "recurrent_kernel": normal(16, 4),
        "kernel_l1": kernel,
        "recurrent_kernel_l1": recurrent,
    }
    theirs = [
        {"kernel": own["kernel"].T.copy(), "recurrent_kernel": own["recurrent_kernel"].T.copy()},
        {
            "kernel": kernel.reshape(4, 4, 4)[[0, 1, 3, 2]].reshape(16, 4).T.copy(),
            "recurrent_kernel": recurrent.T.copy(),
        },
    ]
    reference = built("pytorch", ("rnn", "LSTM", own))
    candidate = built("keras", *((f"lstm_{i}", "LSTM", arrays) for i, arrays in enumerate(theirs)))
    assert_found("rnn.kernel_l1", "rnn-gate-order", reference, candidate)


def test_a_separable_convolution_against_its_halves() -> None:
    depthwise, pointwise, bias = normal(6, 1, 3, 3), normal(4, 6, 1, 1), normal(4)
    reference = built(
        "pytorch",
        ("depth", "DepthwiseConv", {"kernel": depthwise}),
        ("point", "Conv", {"kernel": pointwise, "bias": bias}),
    )
    right = {
        "depthwise_kernel": depthwise.reshape(3, 2, 3, 3).transpose(2, 3, 0, 1).copy(),
        "kernel": pointwise.transpose(2, 3, 1, 0).copy(),
        "bias": bias,
    }
    candidate = built("keras", ("separable", "SeparableConv", right))
    pairing = pair(reference, candidate)
    assert [link.expected for link in pairing.links] == [True] * 3
    assert pairing.notes == ()
    fresh = built("keras", ("separable", "SeparableConv", {role: normal(*a.shape) for role, a in right.items()}))
    moved = transfer_values(pair(reference, fresh), reference.values, fresh.parameters, fresh.values)
    for name, array in moved.items():
        np.testing.assert_array_equal(array, candidate.values[name])


def test_flattened_features_in_another_order_are_right() -> None:
    kernel, bias = normal(5, 3 * 4 * 2), normal(5)
    theirs = kernel.reshape(5, 3, 4, 2).transpose(2, 3, 1, 0).reshape(-1, 5).copy()
    reference = built("pytorch", ("fc", "Dense", {"kernel": kernel, "bias": bias}))
    candidate = built("keras", ("dense", "Dense", {"kernel": theirs, "bias": bias}))
    for one, other in ((reference, candidate), (candidate, reference)):
        pairing = pair(one, other)
        assert pairing.notes == ()
        assert [link.how for link in pairing.links] == ["value"] * 2
        assert pairing.links[0].candidate.view.order is not None
        assert_carried(pairing, one, other)
        moved = transfer_values(pairing, one.values, other.parameters, other.values)
        np.testing.assert_array_equal(moved[other.parameters[0].name], other.values[other.parameters[0].name])


def test_features_made_for_a_reshape_are_right_and_other_orders_are_not() -> None:
    kernel, bias = normal(12, 5), normal(12)
    place = np.arange(12).reshape(3, 4).T.ravel()
    reference = built("pytorch", ("fc", "Dense", {"kernel": kernel, "bias": bias}))
    candidate = built("keras", ("dense", "Dense", {"kernel": kernel[place].T.copy(), "bias": bias[place]}))
    assert all(link.expected for link in pair(reference, candidate).links)
    mixed = RNG.permutation(12)
    wrong = built("keras", ("dense", "Dense", {"kernel": kernel[mixed].T.copy(), "bias": bias[mixed]}))
    pairing = pair(reference, wrong)
    assert [note.cause for note in pairing.notes] == ["weight-order-mismatch"] * 2


@pytest.mark.parametrize("torch_first", [True, False])
def test_the_flatten_order_is_among_the_maps_to_try(torch_first: bool) -> None:
    """The weights were copied without regard to the flatten: loaded through the right map they would fit."""
    kernel = normal(5, 3 * 4 * 2)
    own = built("pytorch", ("fc", "Dense", {"kernel": kernel}))
    theirs = built("keras", ("dense", "Dense", {"kernel": kernel.T.copy()}))
    if torch_first:
        one, other, context = own, theirs, ((3, 4, 2), (4, 2, 3))
        right = kernel.reshape(5, 3, 4, 2).transpose(2, 3, 1, 0).reshape(24, 5)
    else:
        one, other, context = theirs, own, ((4, 2, 3), (3, 4, 2))
        right = kernel.T.reshape(4, 2, 3, 5).transpose(3, 2, 0, 1).reshape(5, 24)
    link = pair(one, other).links[0]
    assert link.expected
    maps = list(candidate_maps(link, one.parameters[0], other.parameters[0], context))
    fitting = [cause for cause, view in maps if np.array_equal(see(view, right), one.values[link.reference.parameter])]
    assert fitting == ["flatten-order"]
    loaded = np.zeros_like(right)
    view = next(view for cause, view in maps if cause == "flatten-order")
    put(view, loaded, one.values[link.reference.parameter])
    np.testing.assert_array_equal(loaded, right)


def test_all_maps_to_try_fit_and_differ() -> None:
    """Sizes are square where they can be: every map shows the shape, none shows what the link or another does."""
    cases = [
        ("Dense", "kernel", (6, 6), (6, 6)),
        ("Conv", "kernel", (4, 4, 3, 3), (3, 3, 4, 4)),
        ("ConvTranspose", "kernel", (3, 3, 3, 3), (3, 3, 3, 3)),
        ("DepthwiseConv", "kernel", (6, 1, 3, 3), (3, 3, 3, 2)),
        ("LSTM", "kernel", (16, 4), (4, 16)),
        ("GRU", "recurrent_kernel", (12, 4), (4, 12)),
        ("GRU", "bias_reverse", (12,), (12,)),
        ("LSTM", "kernel_l1", (4, 1), (1, 4)),
    ]
    for op, role, shape, other in cases:
        own = built("pytorch", ("a", op, {role: normal(*shape)}))
        theirs = built("keras", ("b", op, {role.removesuffix("_l1"): normal(*other)}))
        for one, two in ((own, theirs), (theirs, own)):
            link = pair(one, two).links[0]
            array = two.values[link.candidate.parameter]
            seen = [see(link.candidate.view, array)]
            for cause, view in candidate_maps(link, one.parameters[0], two.parameters[0]):
                other_seen = see(view, array)
                assert other_seen.shape == seen[0].shape, (op, cause)
                assert not any(np.array_equal(other_seen, before) for before in seen), (op, cause)
                seen.append(other_seen)
                written = np.zeros_like(array)
                put(view, written, other_seen)
                np.testing.assert_array_equal(written, array)
            assert len(seen) > 1, op


def test_fused_attention_against_three_layers() -> None:
    parts = [normal(6, 6) for _ in range(3)]
    fused = {"kernel": np.concatenate(parts), "bias": np.zeros(18, np.float32)}
    reference = built("pytorch", ("qkv", "Dense", fused))
    candidate = built(
        "keras",
        *(
            (name, "Dense", {"kernel": part.T.copy(), "bias": np.zeros(6, np.float32)})
            for name, part in zip("qkv", parts, strict=True)
        ),
    )
    for one, other in ((reference, candidate), (candidate, reference)):
        pairing = pair(one, other)
        assert len(pairing.links) == 6
        assert all(link.expected for link in pairing.links)
        assert pairing.unmatched_reference == pairing.unmatched_candidate == ()
        assert_carried(pairing, one, other)
        assert len({link.name for link in pairing.links}) == 6
        moved = transfer_values(pairing, one.values, other.parameters, other.values)
        for name, array in moved.items():
            np.testing.assert_array_equal(array, other.values[name])


def test_query_and_key_swapped() -> None:
    parts = [normal(6, 6) for _ in range(3)]
    own = {"in_kernel": np.concatenate(parts), "out_kernel": normal(6, 6)}
    kernels = [part.T.reshape(6, 2, 3).copy() for part in parts]
    theirs = {
        "query_kernel": kernels[1],
        "key_kernel": kernels[0],
        "value_kernel": kernels[2],
        "out_kernel": own["out_kernel"].T.reshape(2, 3, 6).copy(),
    }
    reference = built("pytorch", ("mha", "MultiHeadAttention", own))
    candidate = built("keras", ("attention", "MultiHeadAttention", theirs))
    pairing = pair(reference, candidate)
    assert causes(pairing) == [
        ("mha.in_kernel[0:6]", "weight-order-mismatch"),
        ("mha.in_kernel[6:12]", "weight-order-mismatch"),
    ]


def test_heads_taken_for_their_features() -> None:
    query = normal(6, 6)
    own = {"in_kernel": np.concatenate([query, normal(6, 6), normal(6, 6)])}
    theirs = {
        "query_kernel": query.T.reshape(6, 3, 2).transpose(0, 2, 1).copy(),
        "key_kernel": own["in_kernel"][6:12].T.reshape(6, 2, 3).copy(),
        "value_kernel": own["in_kernel"][12:].T.reshape(6, 2, 3).copy(),
    }
    reference = built("pytorch", ("mha", "MultiHeadAttention", own))
    candidate = built("keras", ("attention", "MultiHeadAttention", theirs))
    assert_found("mha.in_kernel[0:6]", "weight-order-mismatch", reference, candidate)


def jax_tree(**arrays: np.ndarray) -> Built:
    return built("jax", ("", "", {f"?{name}": array for name, array in sorted(arrays.items())}))


def test_a_pytree_by_value_and_its_zeros_by_name() -> None:
    layers = [dense_pair(n, m) for n, m in ((3, 8), (8, 8), (8, 8))]
    for own, theirs in layers:
        own["bias"] = theirs["bias"] = np.zeros(8, np.float32)
    reference = built("pytorch", *((f"fc{i}", "Dense", own) for i, (own, _) in enumerate(layers)))
    candidate = jax_tree(
        **{f"w{i}": theirs["kernel"] for i, (_, theirs) in enumerate(layers)},
        **{f"b{i}": theirs["bias"] for i, (_, theirs) in enumerate(layers)},
    )
    for one, other in ((reference, candidate), (candidate, reference)):
        pairing = pair(one, other)
        names = {link.reference.parameter: link.candidate.parameter for link in pairing.links}
        if one is candidate:
            names = {b: a for a, b in names.items()}
        assert names == {
            f"fc{i}.{role}": f".{short}{i}" for i in range(3) for role, short in (("kernel", "w"), ("bias", "b"))
        }
        assert all(link.expected for link in pairing.links)
        assert_carried(pairing, one, other)


def test_an_untransferred_pytree_by_shape() -> None:
    layers = [dense_pair(n, m) for n, m in ((3, 8), (8, 4))]
    reference = built("pytorch", *((f"fc{i}", "Dense", own) for i, (own, _) in enumerate(layers)))
    candidate = jax_tree(w1=normal(8, 4), w0=normal(3, 8), b0=normal(8), b1=normal(4))
    pairing = pair(reference, candidate)
    assert [link.candidate.parameter for link in pairing.links] == [".w0", ".b0", ".w1", ".b1"]
    assert {note.cause for note in pairing.notes} == {"weights-not-transferred"}


def test_two_biases_against_one_in_a_pytree() -> None:
    own = {"kernel": normal(16, 3), "recurrent_kernel": normal(16, 4), "bias": normal(16), "recurrent_bias": normal(16)}
    reference = built("pytorch", ("rnn", "LSTM", own))
    candidate = jax_tree(
        wx=own["kernel"].T.copy(), wh=own["recurrent_kernel"].T.copy(), b=own["bias"] + own["recurrent_bias"]
    )
    for one, other in ((reference, candidate), (candidate, reference)):
        pairing = pair(one, other)
        assert len(pairing.links) == 3
        assert pairing.unmatched_reference == pairing.unmatched_candidate == ()
        assert_carried(pairing, one, other)


def test_a_tied_tensor_is_linked_twice() -> None:
    table = normal(10, 4)
    reference = built("pytorch", ("emb", "Embedding", {"embeddings": table}))
    candidate = built(
        "keras", ("embedding", "Embedding", {"embeddings": table}), ("head", "Dense", {"kernel": table.T.copy()})
    )
    for one, other in ((reference, candidate), (candidate, reference)):
        pairing = pair(one, other)
        assert len(pairing.links) == 2
        assert len({link.name for link in pairing.links}) == 2
        assert pairing.unmatched_reference == pairing.unmatched_candidate == ()
        assert_carried(pairing, one, other)


def test_the_users_own_pairs_win() -> None:
    one, two = dense_pair(6, 6), dense_pair(6, 6)
    reference = built("pytorch", ("a", "Dense", one[0]), ("b", "Dense", two[0]))
    candidate = built("keras", ("a", "Dense", one[1]), ("b", "Dense", two[1]))
    given = {"a.kernel": "b.kernel", "b.kernel": ("a.kernel", (0, 1)), "a.bias": "b.bias", "b.bias": "a.bias"}
    pairing = pair(reference, candidate, given)
    assert links(pairing) == [
        ("a.kernel", "b.kernel", "given", False),
        ("a.bias", "b.bias", "given", False),
        ("b.kernel", "a.kernel", "given", False),
        ("b.bias", "a.bias", "given", False),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fc.wrong": "dense.kernel"}, "no parameter 'fc.wrong'; known: fc.kernel, fc.bias"),
        ({"fc.kernel": "nowhere"}, "no parameter 'nowhere'; known: dense.kernel, dense.bias"),
        ({"fc.kernel": "dense.bias"}, "does not fit fc.kernel"),
        ({"fc.kernel": ("dense.kernel", (0, 1))}, r"with axes \(0, 1\)"),
    ],
)
def test_wrong_pairs_are_refused(given, message: str) -> None:
    own, theirs = dense_pair(4, 5)
    with pytest.raises(HarnessError, match=message):
        pair(built("pytorch", ("fc", "Dense", own)), built("keras", ("dense", "Dense", theirs)), given)


def test_double_precision_values_are_compared_as_float32() -> None:
    own, theirs = dense_pair(4, 5)
    theirs = {role: array.astype(np.float64) * (1 + 1e-12) for role, array in theirs.items()}
    pairing = pair(built("pytorch", ("fc", "Dense", own)), built("keras", ("dense", "Dense", theirs)))
    assert all(link.expected for link in pairing.links)


def test_a_zero_second_bias_belongs_to_the_one() -> None:
    own = {
        "kernel": normal(16, 3),
        "recurrent_kernel": normal(16, 4),
        "bias": normal(16),
        "recurrent_bias": np.zeros(16),
    }
    reference = built("pytorch", ("rnn", "LSTM", own))
    candidate = jax_tree(wx=own["kernel"].T.copy(), wh=own["recurrent_kernel"].T.copy(), b=own["bias"])
    pairing = pair(reference, candidate)
    assert [link.name for link in pairing.links][-1] == "rnn.bias + rnn.recurrent_bias"
    assert pairing.unmatched_reference == ()


def test_a_matrix_against_a_convolution_of_one_place() -> None:
    kernel = normal(5, 4)
    reference = built("pytorch", ("conv", "Conv", {"kernel": kernel[..., None], "bias": np.zeros(5)}))
    for shape in ((4, 5), (1, 4, 5)):
        op = "Dense" if len(shape) == 2 else "Conv"
        candidate = built("keras", ("layer", op, {"kernel": kernel.T.reshape(shape).copy(), "bias": np.zeros(5)}))
        for one, other in ((reference, candidate), (candidate, reference)):
            pairing = pair(one, other)
            assert len(pairing.links) == 2
            assert_carried(pairing, one, other)
            assert all(link.expected for link in pairing.links)


def test_a_layer_held_by_a_custom_one_takes_no_other_partner() -> None:
    one, two = dense_pair(4, 4), dense_pair(4, 4)
    reference = built("pytorch", ("a", "Dense", one[0]), ("b", "Dense", two[0]))
    custom = {"?w": one[1]["kernel"], "?b": one[1]["bias"]}
    candidate = built("keras", ("fresh", "Dense", dense_pair(4, 4)[1]), ("custom", "", custom))
    pairing = pair(reference, candidate)
    assert {link.name: link.candidate.parameter for link in pairing.links} == {
        "a.kernel": "custom.w",
        "a.bias": "custom.b",
        "b.kernel": "fresh.kernel",
        "b.bias": "fresh.bias",
    }


def test_nothing_against_nothing() -> None:
    pairing = pair_parameters([], [], {}, {})
    assert pairing.links == pairing.unmatched_reference == pairing.unmatched_candidate == pairing.notes == ()
    own = built("pytorch", ("a", "Dense", dense_pair(4, 4)[0]))
    alone = pair_parameters(own.parameters, [], own.values, {})
    assert [note.cause for note in alone.unmatched_reference] == ["layer-missing"] * 2


def test_a_value_that_is_not_given_is_refused() -> None:
    own = built("pytorch", ("a", "Dense", dense_pair(4, 4)[0]))
    with pytest.raises(HarnessError, match=r"reference parameter a\.kernel has no value"):
        pair_parameters(own.parameters, [], {}, {})


def test_a_cyclic_gate_order_is_told_as_it_lies_in_memory() -> None:
    kernel = normal(16, 3)
    reference = built("pytorch", ("rnn", "LSTM", {"kernel": kernel}))
    candidate = built("keras", ("lstm", "LSTM", {"kernel": gates(kernel, (2, 0, 1, 3)).T.copy()}))
    assert_found("rnn.kernel", "rnn-gate-order", reference, candidate)
    assert "gate order c,i,f,o" in pair(reference, candidate).notes[0].text
    gru = normal(12, 3)
    reference = built("keras", ("gru", "GRU", {"kernel": gates(gru, (1, 0, 2)).T.copy()}))
    candidate = built("pytorch", ("rnn", "GRU", {"kernel": gates(gru, (2, 0, 1))}))
    assert_found("gru.kernel", "rnn-gate-order", reference, candidate)
    assert "gate order n,r,z" in pair(reference, candidate).notes[0].text

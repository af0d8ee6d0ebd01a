"""The calls of torch models as users write them; what must be told apart, and what stays unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.calls import Call
from harness.recipe import Batch, Forced, Recipe

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)
from torch.nn import functional as F  # noqa: E402, N812 (the name that users give it)

from frameworks import pytorch_models as models  # noqa: E402
from tests.torch_calls import Block, assert_close, assert_reproduces, computed, normal, seen  # noqa: E402

# --- what must be told apart ------------------------------------------------------------------------------------

PLANTED: dict[str, tuple[Callable[[], Any], tuple[int, ...], dict[str, Any]]] = {
    "stride": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 2, 7, 7), {"stride": (1, 2)}),
    "dilation": (lambda: nn.Conv2d(2, 3, 3, dilation=2), (2, 2, 7, 7), {"dilation": (1, 1)}),
    "groups": (lambda: nn.Conv2d(4, 4, 3, groups=2), (2, 4, 5, 5), {"group_order": "interleaved"}),
    "same": (lambda: nn.Conv2d(2, 3, 2, padding="same"), (2, 2, 5, 5), {"padding": ((1, 0), (1, 0))}),
    "mode": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 5), {"padding_mode": "reflect"}),
    "kernel axes": (lambda: nn.Conv2d(2, 3, 3), (2, 2, 5, 5), {"kernel_axes": (0, 1, 3, 2)}),
    "dense": (lambda: nn.Linear(3, 3), (2, 3), {"kernel_axes": (1, 0)}),
    "flip": (lambda: nn.ConvTranspose2d(2, 3, 3), (2, 2, 5, 5), {"flip": True}),
    "batch norm epsilon": (lambda: nn.BatchNorm2d(2), (2, 2, 5, 5), {"epsilon": 1e-3}),
    "batch norm mode": (lambda: nn.BatchNorm2d(2), (2, 2, 5, 5), {"training": False}),
    "layer norm epsilon": (lambda: nn.LayerNorm(5), (2, 5), {"epsilon": 1e-3}),
    "layer norm axes": (lambda: nn.LayerNorm(5), (2, 5, 5), {"axes": (1,)}),
    "rms norm": (lambda: nn.RMSNorm(5), (2, 5), {"center": True}),
    "group norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 5), {"groups": 4}),
    "pool padding": (lambda: nn.MaxPool2d(2, padding=1), (2, 2, 5, 5), {"padding_value": 0.0}),
    "pool count": (lambda: nn.AvgPool2d(2, padding=1), (2, 2, 5, 5), {"count_include_pad": False}),
    "pool ceil": (lambda: nn.AvgPool2d(2), (2, 2, 5, 5), {"ceil_mode": True}),
    "gates": (lambda: nn.LSTM(3, 4), (5, 2, 3), {"gates": "figo"}),
    "reset": (lambda: nn.GRU(3, 4), (5, 2, 3), {"reset_after": False}),
    "reverse": (lambda: nn.RNN(3, 4), (5, 2, 3), {"reverse": True}),
    "time": (lambda: nn.RNN(3, 4), (2, 2, 3), {"time_axis": 0}),
    "slope": (lambda: nn.LeakyReLU(), (2, 3), {"negative_slope": 0.3}),
    "gelu": (lambda: nn.GELU(), (2, 3), {"form": "tanh", "scale": 0.7978845608028654, "cubic": 0.044715}),
    "maximum": (lambda: nn.ReLU6(), (40, 30), {"maximum": 2.0}),
    "softmax": (lambda: nn.Softmax(1), (2, 3, 4), {"axes": (2,)}),
    "deviation": (lambda: lambda x: x.std(1), (2, 3), {"ddof": 0}),
    "grid": (lambda: nn.Upsample(size=(7, 7), mode="bilinear"), (1, 1, 3, 3), {"grid": "align_corners"}),
    "flatten": (lambda: nn.Flatten(), (2, 3, 4, 5), {"order": (1, 2, 0)}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("name", PLANTED)
def test_an_edited_field_is_seen(name: str) -> None:
    make, shape, fields = PLANTED[name]
    call, _, _ = seen(make(), normal(*shape) * 2)
    assert_close(computed(call)[-1], call.output)
    wrong = computed(replace(call, ops=(replace(call.ops[0], **fields), *call.ops[1:])))[-1]
    assert wrong.shape != call.output.shape or np.abs(wrong - call.output).max() > 1e-6


KINKS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (F.relu, {"slope_at_threshold": 1.0}),
    (lambda x: x.clamp(-1, 1), {"slope_at_minimum": 0.0}),
    (lambda x: x.max(1)[0], {"tie": "split"}),
    (lambda x: x.amax(1), {"tie": "first"}),
    (nn.MaxPool1d(2), {"tie": "last"}),
)


@pytest.mark.parametrize(("block", "fields"), KINKS)
def test_an_edited_subgradient_is_seen(block: Any, fields: dict[str, Any]) -> None:
    call, record, dy = seen(block, np.round(normal(3, 4, 6)))
    assert_reproduces(call, record, dy)
    with pytest.raises(AssertionError):
        assert_reproduces(replace(call, ops=(replace(call.ops[0], **fields),)), record, dy)


# --- models as users write them ---------------------------------------------------------------------------------


class Written(nn.Module):
    """Functions and modules, in-place, tied to parameters of its own, one block used twice, one that is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4)
        self.act, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.kernel, self.gain = nn.Parameter(torch.randn(16, 4)), nn.Parameter(torch.ones(4))
        self.bilinear = nn.Bilinear(4, 4, 4)
        self.decomposed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x: Any) -> Any:
        h = self.drop(self.act(self.norm(self.conv(x))))
        h = F.max_pool2d(h, 3).flatten(1)
        h = (h @ self.kernel) * self.gain
        h += 1
        h = self.act(h)
        return self.decomposed(self.bilinear(h, h))


def written_calls(training: bool = True) -> tuple[Any, dict[str, Call], Any]:
    watched = models.watch(Recipe(model=Written(), training=training), "float64", False)
    batch = Batch(inputs=(normal(3, 2, 6, 6),))
    names = watched.step(batch).outputs and list(watched.step(batch).activations)
    watched.load(watched.state())
    before = watched.state(), torch.get_rng_state()
    calls = watched.calls(batch, names)
    for name, value in watched.state().values.items():
        assert np.array_equal(value, before[0].values[name])
    assert torch.equal(torch.get_rng_state(), before[1])
    return watched, calls, watched.pull_back(batch, {}).activations


def test_every_activation_of_a_model_has_its_call() -> None:
    _, calls, activations = written_calls()
    assert list(calls) == list(activations)
    for name, call in calls.items():
        assert call.output.dtype == np.float64
        if name not in ("drop", "max_pool2d", "flatten") and "drop" not in name and call.ops:
            assert_close(computed(call)[-1], call.output)
    assert not calls["bilinear"].ops
    assert [value.shape for value in calls["bilinear"].inputs][:2] == [(3, 4), (3, 4)]
    assert calls["conv"].ops[0].padding_mode == "circular"
    assert calls["conv"].names == (("conv.weight", "conv.bias"),)
    assert calls["norm"].names == (("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"),)
    assert calls["matmul"].names == (("",),)  # it is the parameter's transpose that a dense layer holds
    assert calls["mul"].names == (("gain",),)
    assert calls["decomposed"].names == (("", "decomposed.bias"),)
    assert calls["drop"].inputs[1].dtype == bool


def test_an_in_place_function_is_read_before_it_runs() -> None:
    _, calls, _ = written_calls(training=False)
    assert (calls["act"].inputs[0] < 0).any()
    assert_close(computed(calls["act"])[-1], calls["act"].output)
    assert "act#2" in calls


def test_inputs_are_read_as_forced() -> None:
    watched, calls, _ = written_calls(training=False)
    forced = Forced(activations={"conv": calls["conv"].output + 1})
    again = watched.calls(Batch(inputs=(normal(3, 2, 6, 6),)), ["conv", "norm"], forced)
    assert_close(again["norm"].inputs[0], calls["conv"].output + 1)
    assert_close(again["conv"].output, calls["conv"].output)


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.attention(x[..., :4], x[:, :3, :3], x[:, :3, :5])[0]


def test_attention_to_another_sequence() -> None:
    call, _, _ = seen(Cross(), normal(2, 6, 5))
    assert call.kind == "MultiheadAttention"
    assert_close(computed(call)[-1], call.output)


class Packed(nn.Module):
    def __init__(self, lengths: list[int]) -> None:
        super().__init__()
        self.lengths = lengths
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[0].data


@pytest.mark.parametrize("lengths", [[5, 3, 2], [2, 5, 3]])
@pytest.mark.parametrize("name", ["block.lstm", "block.lstm.1", "block.lstm.2"])
def test_a_packed_sequence_and_every_output_of_a_layer(name: str, lengths: list[int]) -> None:
    call, _, _ = seen(Packed(lengths), normal(3, 5, 3), name=name)
    assert call.ops[0].masked
    if name != "block.lstm":
        assert call.inputs[1].sum(axis=1).tolist() == lengths
    assert_close(computed(call)[-1], call.output)


class Swished(nn.Tanh):
    """Reads its input twice; counts as torch's own."""

    def forward(self, input: Any) -> Any:
        return input * torch.sigmoid(input)


Swished.forward.__module__ = "torch.nn.modules.activation"


@pytest.mark.parametrize(
    "block",
    [
        nn.LSTM(3, 4, num_layers=2, bidirectional=True),
        nn.LSTM(3, 4, num_layers=2, dropout=0.5),
        nn.LSTM(3, 4, proj_size=2),
        nn.EmbeddingBag(5, 3),
        Swished(),
        nn.Embedding(5, 3, max_norm=1.0),
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
        nn.LPPool1d(float("inf"), 2),
        lambda x: torch.cumsum(x, 1),
        lambda x: x.view(-1, 2),
        lambda x: torch.add(x, x, alpha=2),
        lambda x: torch.std(x, 1, correction=0.5),
    ],
)
def test_what_is_not_known_for_sure_stays_unknown(block: Any) -> None:
    if isinstance(block, nn.Embedding | nn.EmbeddingBag):
        call, _, _ = seen(block, np.array([[0, 1], [2, 3]]))
    elif isinstance(block, nn.MultiheadAttention):
        call, _, _ = seen(Wrapped(block), normal(5, 2, 4))
    else:
        call, _, _ = seen(block, normal(4, 2, 3))
    assert call.ops == ()
    assert call.inputs
    assert call.output.size


class Wrapped(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x)[0]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_scripted_model_is_unknown() -> None:
    watched = models.watch(Recipe(model=torch.jit.script(nn.Linear(3, 2))), "float64", True)
    batch = Batch(inputs=(normal(4, 3),))
    (name,) = watched.step(batch).activations
    assert watched.calls(batch, [name, "no such name"]).keys() == {name}
    assert watched.calls(batch, [name])[name].ops == ()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_both_directions_of_a_recurrence_are_read(kind: Any, batch_first: bool) -> None:
    _ = torch.manual_seed(0)
    block = kind(3, 4, bidirectional=True, batch_first=batch_first)
    watched = models.watch(Recipe(model=Block(block, normal(4, 2, 3))), "float64", False)
    batch = Batch(inputs=(normal(4, 2, 3),))
    names = [name for name in watched.step(batch).activations if name.startswith("block")]
    calls = watched.calls(batch, names)
    for name in names:
        assert [f"{name}@1" in calls, f"{name}@2" in calls] == [True, True]
        assert [way.ops[0].reverse for way in (calls[f"{name}@1"], calls[f"{name}@2"])] == [False, True]
        for call in (calls[f"{name}@1"], calls[f"{name}@2"], calls[name]):
            assert_close(computed(call)[-1], call.output)

"""harness.compare: the verdict and the first divergence of two users' models, planted differences, and bad input.

Large sets of models are in benchmarks/ports; here is each way of going right and wrong, on the framework that starts
fastest, and the ways across frameworks once.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness
from harness.case import HarnessError

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 48)


def network(**changes: Any) -> Any:
    """An MLP with the same weights each time, written as one module or the other."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3)]
    for place, layer in changes.items():
        layers[int(place[1:])] = layer
    return nn.Sequential(*layers)


def trained(model: Any, rule: str = "SGD", **how: Any) -> Any:
    import torch

    names = ("after_backward", "zero_grad", "penalty", "training", "accumulate", "class_weight", "schedule_every")
    extra = {name: how.pop(name) for name in names if name in how}
    optimizer = getattr(torch.optim, rule)(model.parameters(), **{"lr": 0.05, **how})
    return harness.side(model, loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer, **extra)


def compared(reference: Any, candidate: Any, x: Any = X, y: Any = Y, **how: Any) -> harness.Comparison:
    return harness.compare(reference, candidate, x, y, **{"steps": 3, "batch_size": 16, **how})


def refactored() -> Any:
    import torch
    from torch import nn

    class Refactored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 3)

        def forward(self, x: Any) -> Any:
            return self.head(torch.tanh(self.second(torch.relu(x @ self.first.weight.T + self.first.bias))))

    model = Refactored()
    for own, other in zip((model.first, model.second, model.head), (0, 2, 4), strict=True):
        own.load_state_dict(network()[other].state_dict())
    return model


def test_a_refactored_model_is_the_same() -> None:
    result = compared(trained(network()), trained(refactored()))
    assert result.verdict in ("identical", "rounding")
    assert result.first is None
    assert result.exit_code == 0
    assert set(result.frame["kind"]) >= {"activation", "loss", "activation_gradient", "gradient", "update"}


def planted_differences() -> dict[str, Any]:
    """By name: the two sides, and where the difference first shows, at which step."""
    import torch
    from torch import nn

    def kernel_transposed() -> Any:
        model = network()
        model[2].weight.data = model[2].weight.data.T.contiguous()
        return model

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> Any:
            return 2 * grad_outputs[0]

    class Wrong(nn.Tanh):
        def forward(self, input: Any) -> Any:
            return Doubled.apply(super().forward(input))

    def clipped(model: Any) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)

    plain = lambda: trained(network())  # noqa: E731
    return {
        "kernel": (plain, lambda: trained(kernel_transposed()), "forward:2", 0),
        "activation": (plain, lambda: trained(network(_3=nn.Sigmoid())), "forward:3", 0),
        "slope": (plain, lambda: trained(network(_1=nn.LeakyReLU(1e-9))), "forward:1", 0),
        "rate": (plain, lambda: trained(network(), lr=0.05 * (1 + 1e-9)), "update:0.weight", 0),
        "momentum": (plain, lambda: trained(network(), momentum=0.9), "update:0.weight", 1),
        "backward": (plain, lambda: trained(network(_3=Wrong())), "gradient:2.weight", 0),
        "zero_grad": (plain, lambda: trained(network(), zero_grad=False), "gradient:4.weight", 1),
        "clipping": (plain, lambda: trained(network(), after_backward=clipped), "update:0.weight", 0),
        "penalty": (plain, lambda: trained(network(), penalty=lambda m: 1e-7 * m[0].weight.square().sum()), "loss", 0),
        "accumulated": (
            lambda: trained(network(), accumulate=2),
            lambda: trained(network(), accumulate=2, lr=0.05 * (1 + 1e-9)),
            "update:0.weight",
            1,
        ),
        "accumulate": (plain, lambda: trained(network(), accumulate=2), "update:0.weight", 0),
        "epsilon": (
            lambda: trained(network(), "Adam", lr=1e-3),
            lambda: trained(network(), "Adam", lr=1e-3, eps=1.01e-8),
            "update:0.weight",
            0,
        ),
    }


NAMES = (
    *("kernel", "activation", "slope", "rate", "momentum", "backward", "zero_grad", "clipping", "penalty", "epsilon"),
    *("accumulated", "accumulate"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_difference_is_found_where_it_starts(name: str) -> None:
    reference, candidate, place, step = planted_differences()[name]
    result = compared(reference(), candidate())
    assert result.verdict == "different"
    assert result.exit_code == 1
    assert result.first is not None
    assert result.first.step == step
    assert result.first.place.partition(":")[0] == place.partition(":")[0]
    assert result.first.place == place or place.startswith(("gradient", "update"))
    assert place in {divergence.place for divergence in result.own}


def test_two_differences_are_both_listed() -> None:
    import torch

    candidate = trained(network(_3=torch.nn.Sigmoid()), lr=0.06)
    own = {divergence.place for divergence in compared(trained(network()), candidate).own}
    assert {"forward:3", "update:0.weight"} <= own


def test_what_only_follows_from_a_difference_is_not_listed() -> None:
    import torch

    own = [d.place for d in compared(trained(network()), trained(network(_1=torch.nn.ELU()))).own]
    assert "forward:2" not in own
    assert "forward:4" not in own
    assert "loss" not in own


def test_the_users_objects_are_the_same_bits_afterwards() -> None:
    import torch

    side = trained(network(), "Adam", lr=1e-3)
    side.loss(side.model(torch.tensor(X)), torch.tensor(Y)).backward()
    side.optimizer.step()
    before = copy.deepcopy([side.model.state_dict(), side.optimizer.state_dict(), torch.get_rng_state()])
    gradients = [parameter.grad.clone() for parameter in side.model.parameters()]
    _ = compared(side, trained(network()))
    after = [side.model.state_dict(), side.optimizer.state_dict(), torch.get_rng_state()]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close([p.grad for p in side.model.parameters()], gradients, rtol=0, atol=0)


def test_without_loss_outputs_and_vector_jacobian_products_are_compared() -> None:
    result = compared(network(), refactored(), y=None, steps=1)
    assert result.verdict in ("identical", "rounding")
    assert set(result.frame["kind"]) == {"activation", "activation_gradient", "gradient"}
    assert (result.frame.loc[result.frame["kind"] == "gradient", "reference"] > 0).all()


def test_no_steps_is_inference() -> None:
    result = compared(network(), refactored(), y=None, steps=0)
    assert set(result.frame["kind"]) == {"activation"}


def test_a_bias_before_batch_norm_under_adam_is_rounding() -> None:
    from torch import nn

    def model() -> Any:
        return network(_1=nn.Sequential(nn.BatchNorm1d(12), nn.ReLU()))

    other = model()
    with np.errstate(all="ignore"):
        result = compared(trained(model(), "Adam", lr=1e-3), trained(other, "Adam", lr=1e-3), steps=8)
    assert result.verdict in ("identical", "rounding")


def test_dropout_left_on_in_both_is_said_in_one_line() -> None:
    from torch import nn

    reference, candidate = network(_1=nn.Dropout(0.5)), network(_1=nn.Dropout(0.4))
    result = compared(trained(reference), trained(candidate))
    assert result.verdict == "undecided"
    assert result.because == "nondeterministic"
    assert any("switch random layers off" in note for note in result.notes)
    assert result.exit_code == 3


def test_dropout_against_none_is_different_and_said() -> None:
    from torch import nn

    result = compared(trained(network(_1=nn.Identity())), trained(network(_1=nn.Dropout(0.5))))
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.candidate_place == "forward:1"
    assert any("switch random layers off" in note for note in result.notes)


def test_weights_that_were_never_transferred_can_be() -> None:
    import torch

    torch.manual_seed(7)
    candidate = refactored()
    for parameter in candidate.parameters():
        torch.nn.init.normal_(parameter)
    assert compared(network(), candidate, y=None, steps=0).verdict == "different"
    told = str(harness.transfer(network(), candidate)).splitlines()
    assert told[:2] == ["6 parameters of the two models belong together", "  0.weight: first.weight as it is, by value"]
    assert not [line for line in told if "not the same" in line]
    assert compared(network(), candidate, y=None, steps=0).verdict in ("identical", "rounding")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"x": X[:0], "y": Y[:0]}, "at least one"),
        ({"x": np.where(X > 2, np.nan, X)}, "clean the data"),
        ({"y": Y[:-1]}, "axis 0"),
        ({"steps": -1}, "steps is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batches": [[100]]}, "index arrays"),
        ({"batches": [[0.5, 1.0]]}, "index arrays"),
        ({"batches": ([[0, 1]], [[0, 1, 2]])}, "as many"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"batch_size": 8.0}, "batch_size is 8.0"),
        ({"x": [[1.0], [1.0, 2.0]]}, "arrays of numbers"),
        ({"parameter_map": [("0.weight", "0.weight")]}, "parameter_map is list"),
        ({"sample_weight": np.ones((len(Y), 2))}, "one number for each"),
        ({"sample_weight": np.full(len(Y), np.nan)}, "sample_weight holds nan"),
    ],
)
def test_bad_input_is_refused_in_one_line(how: dict[str, Any], words: str) -> None:
    with pytest.raises(HarnessError, match=words) as error:
        _ = compared(trained(network()), trained(network()), **how)
    assert "\n" not in str(error.value)


def test_what_is_no_count_or_no_array_is_refused() -> None:
    import torch

    with pytest.raises(HarnessError, match="accumulate is 0"):
        _ = compared(trained(network(), accumulate=0), trained(network()))
    for weights in ([1, 2, 3], {"a": 1.0}, {0: "1"}):
        with pytest.raises(HarnessError, match="a number for each integer"):
            _ = compared(trained(network(), class_weight=weights), trained(network()))
    with pytest.raises(HarnessError, match="unknown schedule_every 'step'"):
        _ = compared(trained(network(), schedule_every="step"), trained(network()))
    with pytest.raises(HarnessError, match="a TensorDataset is no array"):
        _ = compared(
            trained(network()), trained(network()), x=torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
        )


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(HarnessError, match=r"torch\.nn\.Module"):
        _ = compared(3, network())
    with pytest.raises(HarnessError, match="did you mean loss"):
        _ = harness.side(network(), los=None)


def test_the_answer_prints_and_is_a_page(tmp_path: Any) -> None:
    import torch

    result = compared(trained(network()), trained(network(_3=torch.nn.Sigmoid())))
    text = str(result)
    assert "first divergence: forward:3 at step 0" in text
    assert len(text.splitlines()) <= 25
    page = result.to_html(tmp_path / "port.html").read_text()
    assert "forward:3" in page
    assert page.count("<script") == 1  # the page's own, which its policy allows by hash
    assert "forward:3" in result._repr_html_() or "3:" in result._repr_html_()


def port(activation: str = "tanh", rate: float = 0.05, **how: Any) -> Any:
    if "keras" not in registry.installed():
        pytest.skip(registry.pip_line("keras"))
    import keras

    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((8,)), dense(12, "relu"), dense(12, activation), dense(3)])
    model.set_weights([p.detach().numpy().T for p in network().parameters()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=how.pop("momentum", 0.0), **how), loss)
    return model


def test_across_frameworks() -> None:
    assert compared(trained(network()), port()).verdict == "rounding"
    result = compared(trained(network()), port("sigmoid"))
    assert result.first is not None
    assert result.first.place == "forward:3"


def gathered(rate: float) -> Any:
    if "jax" not in registry.installed():
        pytest.skip(registry.pip_line("jax"))
    import jax.numpy as jnp
    import optax

    layers = [layer for layer in network() if list(layer.parameters())]
    of = lambda tensor: jnp.array(tensor.detach().numpy().T)  # noqa: E731
    params = [{"w": of(layer.weight), "b": of(layer.bias)} for layer in layers]

    def apply(params: Any, x: Any) -> Any:
        first, second, last = params
        x = jnp.maximum(x @ first["w"] + first["b"], 0)
        return jnp.tanh(x @ second["w"] + second["b"]) @ last["w"] + last["b"]

    loss = lambda output, y: optax.softmax_cross_entropy_with_integer_labels(output, y).mean()  # noqa: E731
    return harness.side(apply, params=params, loss=loss, optimizer=optax.MultiSteps(optax.sgd(rate, 0.9), 2))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("other", ["keras", "jax"])
def test_gradients_accumulate_in_the_loop_or_in_the_optimizer(other: str, order: tuple[int, int]) -> None:
    def pair(rate: float) -> list[Any]:
        """Keras and optax average the two passes that torch sums."""
        theirs = port(rate=rate, momentum=0.9, gradient_accumulation_steps=2) if other == "keras" else gathered(rate)
        both = trained(network(), lr=0.05, momentum=0.9, accumulate=2), theirs
        return [both[i] for i in order]

    assert compared(*pair(0.1), steps=5).verdict == "rounding"
    result = compared(*pair(0.100001), steps=5)
    assert result.first is not None
    assert (result.first.place.partition(":")[0], result.first.step) == ("update", 1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_users_own_step_that_clears_no_gradients(order: tuple[int, int]) -> None:
    import torch

    def looped(clears: bool) -> Any:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)

        def train_step(x: Any, y: Any) -> Any:
            if clears:
                optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return harness.side(model, train_step=train_step, optimizer=optimizer)

    both = looped(True), looped(False)
    result = compared(*(both[i] for i in order))
    assert result.first is not None
    assert (result.first.place, result.first.step) == ("gradient:4.weight", 1)
    assert {cause.id for cause in result.causes} == {"grad-accumulation"}
    assert compared(looped(True), looped(True)).verdict == "identical"


@pytest.mark.parametrize("kind", ["padding", "pooling"])
def test_a_layer_of_another_size_is_the_place(kind: str) -> None:
    """It cannot be compared itself; what shows it is the average behind it."""
    import torch
    from torch import nn

    def side(planted: bool) -> Any:
        torch.manual_seed(0)
        last = nn.Conv2d(4, 4, 3, padding=0 if planted and kind == "padding" else 1)
        pool = nn.MaxPool2d(2, ceil_mode=planted and kind == "pooling")
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), last if kind == "padding" else pool]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    images = RNG.standard_normal((6, 3, 9, 9)).astype(np.float32)
    result = compared(trained(side(False)), trained(side(True)), images, Y[:6])
    assert result.first is not None
    assert result.first.place == "forward:2"
    assert "2 has shape (" in str(result)
    assert compared(trained(side(True)), trained(side(True)), images, Y[:6]).verdict == "identical"


def test_a_parameter_that_nothing_reads_is_the_place_if_it_differs(tmp_path: Any) -> None:
    import torch

    def side(value: float) -> Any:
        net = network()
        net.register_parameter("spare", torch.nn.Parameter(torch.full((4,), value)))
        return trained(net)

    result = compared(side(1.0), side(2.0))
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place == "parameter:spare"
    assert "nothing else does" in str(result)
    assert "nothing else does" in result.to_html(tmp_path / "page.html").read_text()
    assert compared(side(1.0), side(1.0)).verdict == "identical"

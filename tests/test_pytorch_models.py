"""Watching users' torch models: a record shows what a plain run computes, and the user's objects stay as they were.

The models are a user's, written the way users write them; the hand-runs use copies of them, and no recording.
"""

from __future__ import annotations

import copy
import gc
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.case import HarnessError, Precision
from harness.recipe import Batch, Forced, Recipe, Record
from harness.rules import SGD, Adam, Nadam

torch = pytest.importorskip("torch")
models = pytest.importorskip("frameworks.pytorch_models")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)
from torch.nn import functional as F  # noqa: E402, N812 (the name that users give it)
from torch.utils.checkpoint import checkpoint  # noqa: E402

RNG = np.random.default_rng(0)
X, Y, Z = RNG.normal(size=(6, 5)), RNG.integers(0, 3, 6), RNG.normal(size=(6, 3))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


class Residual(nn.Module):
    """Functions, an in-place activation, batch norm, and two calls of one block."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(4, 3)
        self.scale = torch.tensor(0.1)
        self.calls = 0
        self.seen: list[int] = []

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.seen.append(self.calls)
        h = self.first(x)
        h = self.act(self.norm(h)) * self.scale
        h = F.softplus(h) + h
        return self.last(h)


class Recurrent(nn.Module):
    """An LSTM with its states, two inputs, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.head, self.side = nn.Linear(8, 3), nn.Linear(5, 2)

    def forward(self, x: Any, extra: Any) -> Any:
        h, (state, cell) = self.lstm(x.unsqueeze(-1))
        return {"y": self.head(h[:, -1]) + state.mean() * cell.mean(), "z": self.side(extra)}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(5, 5), nn.Linear(5, 5)
        self.decode.weight = self.encode.weight

    def forward(self, x: Any) -> Any:
        return self.decode(torch.tanh(self.encode(x)))


def batch(precision: Precision = "float64", step: int = 0, target: np.ndarray = Y, **kwargs: Any) -> Batch:
    target = target if target.dtype == np.int64 else target.astype(precision)
    return Batch(inputs=(X.astype(precision),), targets=(target,), step=step, **kwargs)


def recipe(model: Any = None, rate: float = 0.1, **kwargs: Any) -> Recipe:
    model = model or Residual()
    chosen = {"loss": nn.CrossEntropyLoss(), "optimizer": torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)}
    return Recipe(model=model, **(chosen | kwargs))


def bits(*parts: Any) -> Any:
    """All that a user could look at, as plain data."""
    shown: list[Any] = [torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()]  # type: ignore[union-attr]
    shown += [torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()]
    for part in parts:
        if isinstance(part, nn.Module):
            tensors = [*part.named_parameters(), *part.named_buffers()]
            shown += [(n, t.detach().numpy().tobytes(), t.dtype, t.data_ptr(), t._version) for n, t in tensors]
            shown += [(n, id(t), t.grad if t.grad is None else t.grad.numpy().tobytes()) for n, t in tensors]
            shown += [
                (n, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in part.named_modules()
            ]
            shown += [sorted((k, repr(v)) for k, v in vars(m).items() if k[0] != "_") for m in part.modules()]
        else:
            shown.append(repr(part.state_dict()))
    return shown


def hand(model: nn.Module, loss: Callable[[Any], Any], *inputs: np.ndarray) -> tuple[Any, Any]:
    """A plain float64 training step up to the gradients, on a copy."""
    own = copy.deepcopy(model).double()
    for module in own.modules():
        scale = getattr(module, "scale", None)
        if isinstance(scale, torch.Tensor):
            module.scale = torch.tensor(0.1, dtype=torch.float64)
    value = loss(own(*map(torch.tensor, inputs)))
    value.backward()
    return own, value


def assert_same(candidate: Any, reference: Any) -> None:
    assert candidate is not None
    assert np.array_equal(candidate, reference.detach().numpy() if isinstance(reference, torch.Tensor) else reference)


def assert_same_records(candidate: Record, reference: Record) -> None:
    assert list(candidate.activations) == list(reference.activations)
    for kind in ("activations", "cotangents", "gradients"):
        ours, theirs = getattr(candidate, kind), getattr(reference, kind)
        assert list(ours) == list(theirs)
        for name in ours:
            assert_same(ours[name], theirs[name])
    assert candidate.after is not None
    assert reference.after is not None
    assert_same_states(candidate.after, reference.after)


def assert_same_states(candidate: Any, reference: Any) -> None:
    assert candidate.count == reference.count
    for name, value in reference.values.items():
        assert_same(candidate.values[name], value)
    assert candidate.slots.keys() == reference.slots.keys()
    for slot, values in reference.slots.items():
        assert candidate.slots[slot].keys() == values.keys()
        for name, value in values.items():
            assert_same(candidate.slots[slot][name], value)


# --- the user's objects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_users_objects_keep_every_bit(precision: Precision) -> None:
    model = Residual()
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    F.mse_loss(model(torch.ones(4, 5)), torch.ones(4, 3)).backward()
    optimizer.step()
    model.eval()
    model.first.weight.requires_grad_(False)
    before = bits(model, optimizer, schedule)
    watch = models.watch(recipe(model, optimizer=optimizer, schedule=schedule), precision, False)
    record = [watch.step(batch(precision, step)) for step in range(3)][-1]
    watch.load(watch.state())
    assert record.loss.dtype == record.activations["first"].dtype == precision
    assert bits(model, optimizer, schedule) == before
    assert model.calls == 1
    assert model.seen == [1]


def test_random_numbers_are_those_of_the_user_and_are_not_used_up() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            scale = random.random() + np.random.rand()
            return F.dropout(self.last(x), 0.5, self.training) * scale

    model = Noisy()
    before = bits(model)
    narrow, wide = (models.watch(recipe(model), p, False).step(batch(p)) for p in ("float32", "float64"))
    assert bits(model) == before
    assert_same(narrow.activations["dropout"] == 0, wide.activations["dropout"] == 0)
    np.testing.assert_allclose(narrow.activations["mul"], wide.activations["mul"], rtol=1e-4)


def test_a_graph_built_before_the_call_still_works() -> None:
    model = Residual()
    loss = model(torch.ones(4, 5)).sum()
    models.watch(recipe(model), "float64", False).step(batch())
    loss.backward()
    assert model.first.weight.grad is not None


def test_an_error_names_the_module_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.ReLU(), nn.Linear(3, 3)))
    subject = recipe(model)
    before = bits(model, subject.optimizer)
    watch = models.watch(subject, "float64", False)
    with pytest.raises(HarnessError, match=r"at 1\.1 \(Linear\) raised RuntimeError: mat1 and mat2") as raised:
        watch.step(batch())
    assert raised.value.__cause__ is not None
    assert "\n" not in str(raised.value)
    assert bits(model, subject.optimizer) == before


def test_what_a_closure_reaches_is_promoted_and_restored() -> None:
    model, weight = Residual(), torch.tensor([1.0, 2.0, 3.0])

    def loss(output: Any, target: Any) -> Any:
        return F.cross_entropy(output, target, weight=weight) + sum((p**2).sum() for p in model.parameters())

    before = bits(model)
    record = models.watch(recipe(model, loss=loss), "float64", False).step(batch())
    own, _ = hand(
        model,
        lambda o: F.cross_entropy(o, torch.tensor(Y), weight=weight.double()),
        X,
    )
    assert_same(record.gradients["last.bias"], own.last.bias.grad + 2 * own.last.bias)
    assert bits(model) == before
    assert weight.dtype == torch.float32


# --- what is recorded -------------------------------------------------------------------------------------------


def test_a_step_shows_what_a_plain_run_computes() -> None:
    subject = recipe()
    record = models.watch(subject, "float64", False).step(batch())
    own, loss = hand(subject.model, lambda o: F.cross_entropy(o, torch.tensor(Y)), X)
    names = ["first", "norm", "act", "mul", "softplus", "add", "last"]
    assert list(record.activations) == names
    assert record.outputs == ("last",)
    assert_same(record.loss, loss)
    for name, parameter in own.named_parameters():
        assert_same(record.gradients[name], parameter.grad)
    assert record.after.count == 1
    for name, value in own.named_buffers():
        assert_same(record.after.values[name], value)
    for name, parameter in own.named_parameters():
        assert_same(record.after.values[name], torch.add(parameter, parameter.grad, alpha=-0.1))
        assert_same(record.after.slots["velocity"][name], parameter.grad)


def test_cotangents_are_those_of_autograd_also_where_a_tensor_is_changed_in_place() -> None:
    subject = recipe()
    record = models.watch(subject, "float64", False).step(batch())
    own = copy.deepcopy(subject.model).double()
    first = own.first(torch.tensor(X))
    norm = own.norm(first)
    act = F.relu(norm)  # not in place
    mul = act * torch.tensor(0.1, dtype=torch.float64)
    softplus = F.softplus(mul)
    add = softplus + mul
    last = own.last(add)
    tensors = {"first": first, "norm": norm, "act": act, "mul": mul, "softplus": softplus, "add": add, "last": last}
    gradients = torch.autograd.grad(F.cross_entropy(last, torch.tensor(Y)), list(tensors.values()))
    assert list(record.cotangents) == list(tensors)
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        assert_same(record.activations[name], tensor)
        assert_same(record.cotangents[name], gradient)


def test_several_inputs_outputs_and_a_tuple() -> None:
    def loss(output: Any, target: Any) -> Any:
        return F.mse_loss(output["y"], target[0]) + F.mse_loss(output["z"], target[1])

    subject = recipe(Recurrent(), loss=loss)
    given = Batch(inputs=(X, X[:, ::-1].copy()), targets=(Z, Z[:, :2].copy()))
    record = models.watch(subject, "float64", False).step(given)
    own, value = hand(subject.model, lambda o: loss(o, (torch.tensor(Z), torch.tensor(Z[:, :2]))), X, X[:, ::-1].copy())
    assert_same(record.loss, value)
    assert record.outputs == ("add", "side")
    assert {"lstm", "lstm.1", "lstm.2"} <= set(record.cotangents)
    assert record.activations["lstm.2"].shape == (4, 6, 4)
    for name, parameter in own.named_parameters():
        assert_same(record.gradients[name], parameter.grad)


def test_a_module_is_named_by_its_path_and_its_last_function_is_its_output() -> None:
    class Swish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beta = nn.Parameter(torch.ones(4))

        def forward(self, x: Any) -> Any:
            return x * torch.sigmoid(self.beta * x)

    swish = Swish()
    model = nn.Sequential(nn.Linear(5, 4), swish, nn.Sequential(swish, nn.Identity()), nn.Dropout(0.5), nn.Linear(4, 3))
    watch = models.watch(recipe(model), "float64", True)
    record = watch.step(batch())
    assert list(record.activations) == ["0", "1/mul", "1/sigmoid", "1", "1/mul#3", "1/sigmoid#2", "1#2", "4"]
    assert [p.layer for p in watch.parameters] == ["0", "0", "1", "4", "4"]
    assert watch.step(batch()).outputs == ("4",)


def test_names_are_distinct() -> None:
    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return self.relu(torch.relu(x)), torch.relu(x)

    record = models.watch(recipe(Clash()), "float64", True).step(batch())
    assert list(record.activations) == ["relu()", "relu", "relu()#2"]
    assert record.outputs == ("relu", "relu()#2")


def test_a_custom_autograd_function_has_its_cotangent() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.last(Wrong.apply(self.first(x)))

    record = models.watch(recipe(Model()), "float64", False).step(batch())
    assert list(record.cotangents) == ["first", "mul", "last"]
    assert_same(record.cotangents["first"], 3 * record.cotangents["mul"])


def test_a_single_layer_is_a_model() -> None:
    watch = models.watch(recipe(nn.Linear(5, 3)), "float64", False)
    record = watch.step(batch())
    assert list(record.activations) == ["Linear"] == list(record.outputs) == [watch.parameters[0].layer]


def test_a_shared_parameter_appears_once_with_its_whole_gradient() -> None:
    subject = recipe(Tied(), loss=nn.MSELoss())
    watch = models.watch(subject, "float64", False)
    record = watch.step(batch(target=X))
    own, _ = hand(subject.model, lambda o: F.mse_loss(o, torch.tensor(X)), X)
    assert list(record.gradients) == ["encode.weight", "encode.bias", "decode.bias"]
    assert_same(record.gradients["encode.weight"], own.encode.weight.grad)


def test_a_penaltys_own_gradients_are_not_the_steps() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))

    def loss(output: Any, target: Any) -> Any:
        slopes = torch.autograd.grad(output.sum(), model[0].weight, create_graph=True)[0]
        return F.cross_entropy(output, target) + 0 * (slopes**2).sum()

    record = models.watch(recipe(model, loss=loss), "float64", False).step(batch())
    plain = models.watch(recipe(model), "float64", False).step(batch())
    for name, value in plain.cotangents.items():
        np.testing.assert_allclose(record.cotangents[name], value, rtol=1e-12)


def test_frozen_and_unused_parameters_have_no_gradient() -> None:
    class Unused(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.ones(2))

    model = Unused()
    model.encode.bias.requires_grad_(False)
    watch = models.watch(recipe(model, loss=nn.MSELoss()), "float64", False)
    record = watch.step(batch(target=X))
    assert [name for name, value in record.gradients.items() if value is None] == ["idle", "encode.bias"]
    assert [p.name for p in watch.parameters if not p.trainable] == ["encode.bias"]
    assert_same(record.after.values["encode.bias"], model.encode.bias.double())


def test_promotion_is_exact() -> None:
    subject = recipe()
    single, double = (models.watch(subject, precision, False) for precision in ("float32", "float64"))
    for name, value in single.state().values.items():
        assert_same(double.state().values[name], value)
    narrow, wide = single.step(batch("float32")), double.step(batch("float64"))
    for name, value in wide.activations.items():
        np.testing.assert_allclose(narrow.activations[name], value, rtol=1e-4, atol=1e-6)
        assert not np.array_equal(value.astype(np.float32), value)


def test_inference_evaluates() -> None:
    subject = recipe()
    record = models.watch(subject, "float64", True).step(batch())
    own = copy.deepcopy(subject.model).double().eval()
    own.scale = own.scale.new_tensor(0.1, dtype=torch.float64)
    assert_same(record.activations["last"], own(torch.tensor(X)))
    assert record.loss is record.after is None
    training = models.watch(replace(subject, training=True), "float64", True).step(batch())
    assert not np.array_equal(training.activations["norm"], record.activations["norm"])


def test_frozen_parts_stay_frozen_unless_the_whole_model_evaluates() -> None:
    model = Residual()
    model.norm.eval()
    frozen = models.watch(recipe(model), "float64", False).step(batch())
    model.eval()
    training = models.watch(recipe(model), "float64", False).step(batch())
    evaluating = models.watch(recipe(model, training=False), "float64", False).step(batch())
    assert_same(frozen.activations["norm"], evaluating.activations["norm"])
    assert not np.array_equal(training.activations["norm"], evaluating.activations["norm"])


# --- unusual models -----------------------------------------------------------------------------------------------


class Unregistered(nn.Module):
    """Layers and a parameter in plain lists, which model.parameters() does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.scales, self.last = [nn.Linear(5, 5)], [nn.Parameter(torch.ones(5))], nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = torch.tanh(layer(x)) * self.scales[0]
        return self.last(x)


class Remembering(nn.Module):
    """A buffer replaced by another tensor, a constant changed in place, what was computed kept in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.total, self.kept, self.cache = torch.zeros(3), [], {}

    def forward(self, x: Any) -> Any:
        h = self.last(x)
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        self.total += h.mean(0)
        self.kept.append(h)
        self.cache["h"] = h
        return h - self.mean + self.total


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return torch.func.vmap(lambda row: torch.tanh(self.last(row)))(x)


class Checkpointed(Mapped):
    def forward(self, x: Any) -> Any:
        return checkpoint(lambda h: torch.tanh(self.last(h)), x, use_reentrant=False)


def weight_normed() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 4)), nn.Linear(4, 3))  # type: ignore[arg-type]
    _ = model(torch.ones(1, 5))  # now it cannot be copied any more
    return model


UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    "unregistered": Unregistered,
    "remembering": Remembering,
    "vmap": Mapped,
    "checkpoint": Checkpointed,
    "weight norm": weight_normed,
    "parametrised": lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(5, 3))),
    "encoder": lambda: nn.Sequential(nn.Linear(5, 4), nn.TransformerEncoderLayer(4, 2, 8, 0.0), nn.Linear(4, 3)),
    "traced": lambda: torch.jit.trace(nn.Linear(5, 3), torch.ones(1, 5)),
    "half": lambda: nn.Linear(5, 3).half(),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_unusual_model_is_promoted_watched_and_restored(name: str) -> None:
    torch.manual_seed(0)
    model = UNUSUAL[name]()
    subject = recipe(model)
    before = bits(model)
    watch = models.watch(subject, "float64", False)
    records = [watch.step(batch(step=step)) for step in range(2)]
    assert bits(model) == before
    assert all(value.dtype == np.float64 for record in records for value in record.activations.values())
    (output,) = records[1].outputs
    value = torch.tensor(records[1].activations[output], requires_grad=True)
    loss = F.cross_entropy(value, torch.tensor(Y))
    loss.backward()
    np.testing.assert_allclose(records[1].loss, loss.item(), rtol=1e-14)
    np.testing.assert_allclose(records[1].cotangents[output], value.grad, rtol=1e-13)
    again = models.watch(subject, "float64", False)
    for step in range(2):
        assert_same_records(again.step(batch(step=step)), records[step])


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", ["script", "trace", "script within"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripts_modes_are_restored(name: str, inference: bool) -> None:
    """A script keeps them in C++, each part its own."""
    plain = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    script = torch.jit.trace(plain, torch.ones(1, 5), check_trace=False) if name == "trace" else torch.jit.script(plain)
    model = nn.Sequential(script) if name == "script within" else script
    model.train(not inference)
    next(iter(script.children())).training = inference
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    watch = models.watch(recipe(model), "float64", not inference)
    _ = watch.step(batch())
    assert [module.training for module in model.modules()] == modes


def test_gradients_are_those_of_the_loss_by_differences() -> None:
    for build in (Unregistered, Mapped, Checkpointed, weight_normed, UNUSUAL["parametrised"], UNUSUAL["encoder"]):
        watch = models.watch(recipe(build(), training=False), "float64", False)
        start = watch.state()
        record = watch.step(batch())
        name, gradient = next((n, g) for n, g in record.gradients.items() if g is not None and g.ndim == 2)
        direction = np.random.default_rng(0).normal(size=gradient.shape)

        def loss(size: float) -> Any:
            moved = start.values[name] + size * direction  # noqa: B023 (called within the loop's turn)
            watch.load(replace(start, values={**start.values, name: moved}))  # noqa: B023
            return watch.step(batch()).loss  # noqa: B023

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        np.testing.assert_allclose(slope, (gradient * direction).sum(), rtol=1e-6)


def test_a_step_leaves_nothing_behind() -> None:
    watch = models.watch(recipe(), "float64", False)

    def alive() -> int:
        _ = gc.collect()
        return sum(type(thing) in (torch.Tensor, Record) for thing in gc.get_objects())

    _ = watch.step(batch())
    before = alive()
    for step in range(1, 6):
        _ = watch.step(batch(step=step))
    assert alive() <= before


def test_a_trainers_own_state_is_restored() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = nn.Linear(5, 3)
            self.optimizer = torch.optim.Adam(self.model.parameters())
            self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.steps = 0

        def step(self, x: Any, y: Any) -> Any:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.steps += 1
            for name, value in self.model.state_dict().items():
                self.average[name].mul_(0.9).add_(0.1 * value)
            return loss

    trainer = Trainer()
    before = bits(trainer.model, trainer.optimizer), {n: v.tolist() for n, v in trainer.average.items()}
    subject = Recipe(model=trainer.model, optimizer=trainer.optimizer, train_step=trainer.step)
    records = trained(subject, 3)
    assert records[-1].after.count == 3
    assert (bits(trainer.model, trainer.optimizer), {n: v.tolist() for n, v in trainer.average.items()}) == before
    assert trainer.steps == 0


# --- forced values ----------------------------------------------------------------------------------------------


def test_forced_activations_are_what_later_blocks_read() -> None:
    subject = recipe()
    watch = models.watch(subject, "float64", False)
    start = watch.state()
    own = watch.step(batch())
    value = {name: own.activations[name] + RNG.normal(size=own.activations[name].shape) for name in ("act", "add")}
    watch.load(start)
    record = watch.step(batch(), Forced(activations=value))
    copied = copy.deepcopy(subject.model).double()
    assert_same(record.activations["act"], own.activations["act"])
    assert_same(record.activations["mul"], value["act"] * 0.1)
    assert_same(record.activations["last"], copied.last(torch.tensor(value["add"])))
    softplus = F.softplus(torch.tensor(record.activations["mul"]))
    assert_same(record.activations["add"], softplus.numpy() + record.activations["mul"])
    mul = torch.tensor(record.activations["mul"], requires_grad=True)
    (slope,) = torch.autograd.grad((F.softplus(mul) + mul).sum(), mul)
    np.testing.assert_allclose(record.cotangents["mul"], slope.numpy() * record.cotangents["add"], rtol=1e-14)
    np.testing.assert_allclose(record.cotangents["act"], record.cotangents["mul"] * 0.1, rtol=1e-14)


def test_a_value_assigned_by_index_is_forced() -> None:
    class Assigning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            h = self.first(x)
            h[:, 0] = 1.0
            return self.last(h)

    subject, value = recipe(Assigning()), RNG.normal(size=(6, 4))
    record = models.watch(subject, "float64", False).step(batch(), Forced(activations={"setitem": value}))
    assert (record.activations["setitem"][:, 0] == 1).all()
    assert_same(record.activations["last"], copy.deepcopy(subject.model.last).double()(torch.tensor(value)))
    expected = record.cotangents["setitem"].copy()
    expected[:, 0] = 0
    assert_same(record.cotangents["first"], expected)


def test_a_module_named_after_its_function_is_forced() -> None:
    class Swish(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * torch.sigmoid(x)

    subject, value = recipe(nn.Sequential(nn.Linear(5, 4), Swish(), nn.Linear(4, 3))), RNG.normal(size=(6, 4))
    record = models.watch(subject, "float64", False).step(batch(), Forced(activations={"1": value}))
    assert not np.array_equal(record.activations["1"], value)
    assert_same(record.activations["2"], copy.deepcopy(subject.model[2]).double()(torch.tensor(value)))
    assert "1" in record.cotangents


def test_forced_cotangents_flow_on_and_the_own_are_recorded() -> None:
    watch = models.watch(recipe(), "float64", False)
    start = watch.state()
    own = watch.step(batch())
    value = RNG.normal(size=(6, 4))
    watch.load(start)
    record = watch.step(batch(), Forced(cotangents={"first": value}))
    assert_same(record.cotangents["first"], own.cotangents["first"])
    np.testing.assert_allclose(record.gradients["first.weight"], value.T @ X, rtol=1e-13)
    assert_same(record.gradients["last.weight"], own.gradients["last.weight"])


def test_forced_gradients_are_what_the_optimizer_gets() -> None:
    subject = recipe()
    watch = models.watch(subject, "float64", False)
    value = RNG.normal(size=(4, 5))
    record = watch.step(batch(), Forced(gradients={"first.weight": value}))
    assert not np.array_equal(record.gradients["first.weight"], value)
    expected = torch.add(subject.model.first.weight.double(), torch.tensor(value), alpha=-0.1)
    assert_same(record.after.values["first.weight"], expected)


def test_pull_back_is_the_vector_jacobian_product_and_changes_nothing() -> None:
    subject = recipe()
    watch = models.watch(subject, "float64", False)
    before = watch.state()
    record = watch.pull_back(batch(), {"last": Z})
    assert_same_states(watch.state(), before)
    own, _ = hand(subject.model, lambda o: (o * torch.tensor(Z)).sum(), X)
    for name, parameter in own.named_parameters():
        assert_same(record.gradients[name], parameter.grad)
    assert_same(record.cotangents["last"], Z)
    with pytest.raises(HarnessError, match="no activation 'end'; it has first, norm"):
        watch.pull_back(batch(), {"end": Z})


# --- training ---------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=1e-2),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "rprop": lambda p: torch.optim.Rprop(p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_from_a_saved_state_gives_the_same_bits(name: str) -> None:
    model = Residual()
    subject = recipe(model, optimizer=OPTIMIZERS[name](model.parameters()))
    watch = models.watch(subject, "float64", False)
    states = [watch.state()]
    records = []
    for step in range(4):
        records.append(watch.step(batch(step=step)))
        states.append(watch.state())
    fresh = models.watch(subject, "float64", False)
    for step in (2, 0, 3, 1):
        for other in (watch, fresh):
            other.load(states[step])
            assert_same_states(other.state(), states[step])
            assert_same_records(other.step(batch(step=step)), records[step])


def test_a_planted_slot_error_is_seen() -> None:
    watch = models.watch(recipe(), "float64", False)
    _ = watch.step(batch())
    state = watch.state()
    expected = watch.step(batch(step=1))
    watch.load(replace(state, slots={"velocity": {n: v * (1 + 1e-9) for n, v in state.slots["velocity"].items()}}))
    with pytest.raises(AssertionError):
        assert_same_records(watch.step(batch(step=1)), expected)


def trained(subject: Recipe, steps: int, per_epoch: int = 2) -> Any:
    watch = models.watch(subject, "float64", False)
    return [watch.step(batch(step=step, epoch=step // per_epoch)) for step in range(steps)]


def plain(model: nn.Module, steps: int, body: Callable[[nn.Module, Any, int], Any]) -> Any:
    """The user's own loop in float64, on a copy; `body` has the copy, its loss and the step."""
    own = copy.deepcopy(model).double()
    setattr(own, "scale", torch.tensor(0.1, dtype=torch.float64))  # noqa: B010
    for step in range(steps):
        body(own, F.cross_entropy(own(torch.tensor(X)), torch.tensor(Y)), step)
    return own


def assert_ends_at(records: list[Record], own: nn.Module) -> None:
    state = next(r.after for r in reversed(records) if r.after is not None)
    for name, value in own.state_dict().items():
        assert_same(state.values[name], value)


@pytest.mark.parametrize("every", ["batch", "epoch"])
def test_a_schedule_advances_per_batch_or_epoch(every: Any) -> None:
    subject = recipe()
    subject = replace(
        subject, schedule=torch.optim.lr_scheduler.ExponentialLR(subject.optimizer, 0.5), schedule_every=every
    )
    own = copy.deepcopy(subject.model).double()
    own.scale = own.scale.new_tensor(0.1, dtype=torch.float64)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for step in range(6):
        optimizer.zero_grad()
        F.cross_entropy(own(torch.tensor(X)), torch.tensor(Y)).backward()
        optimizer.step()
        if every == "batch" or step % 2:
            schedule.step()
    records = trained(subject, 6)
    assert_ends_at(records, own)
    called = trained(replace(subject, schedule=lambda count: 0.1 * 0.5**count), 6)
    np.testing.assert_allclose(called[-1].after.values["last.bias"], own.last.bias.detach().numpy(), rtol=1e-12)
    watch = models.watch(subject, "float64", False)
    for step in (3, 5, 1):  # from the middle of a run, onwards and back
        watch.load(records[step - 1].after)
        assert_same_records(watch.step(batch(step=step, epoch=step // 2)), records[step])


def test_gradients_accumulate_and_are_clipped() -> None:
    subject = recipe(accumulate=2, after_backward=lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1))
    optimizers: list[Any] = []

    def body(own: Any, loss: Any, step: int) -> None:
        if not optimizers:
            optimizers.append(torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9))
        loss.backward()
        nn.utils.clip_grad_norm_(own.parameters(), 0.1)
        if step % 2:
            optimizers[0].step()
            optimizers[0].zero_grad()

    records = trained(subject, 4)
    assert [r.after is None for r in records] == [True, False, True, False]
    assert_ends_at(records, plain(subject.model, 4, body))
    watch = models.watch(subject, "float64", False)
    again = [watch.step(batch(step=step)) for step in range(2)]
    before = models.watch(subject, "float64", False)
    _ = before.step(batch(step=0))
    state = before.state()
    _ = before.step(batch(step=1))
    before.load(state)
    assert_same_records(before.step(batch(step=1)), again[1])


def test_gradients_pile_up_where_they_are_not_zeroed() -> None:
    subject = recipe(zero_grad=False)
    optimizers: list[Any] = []

    def body(own: Any, loss: Any, step: int) -> None:
        if not optimizers:
            optimizers.append(torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9))
        loss.backward()
        optimizers[0].step()

    own = plain(subject.model, 3, body)
    records = trained(subject, 3)
    assert_ends_at(records, own)
    assert_same(records[-1].gradients["last.bias"], own.last.bias.grad)


def test_a_users_own_step_is_watched() -> None:
    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    total = 0

    def train_step(x: Any, y: Any) -> Any:
        nonlocal total
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        schedule.step()
        total += 1

    before = bits(model, optimizer, schedule, criterion)
    closed = trained(Recipe(model=model, optimizer=optimizer, train_step=train_step), 4)
    assert bits(model, optimizer, schedule, criterion) == before
    assert total == 0
    spelled = trained(
        Recipe(
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            loss=criterion,
            after_backward=lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1),
        ),
        4,
    )
    for ours, theirs in zip(closed, spelled, strict=True):
        assert_same(ours.loss, theirs.loss)
        assert_same_states(ours.after, theirs.after)
        assert list(ours.cotangents) == list(theirs.cotangents)
        assert_same(ours.cotangents["first"], theirs.cotangents["first"])
        assert list(ours.gradients) == list(theirs.gradients)
        for name, gradient in ours.gradients.items():
            assert_same(gradient, theirs.gradients[name])  # as computed: not clipped
    norm = np.sqrt(sum((g**2).sum() for g in closed[0].gradients.values()))
    assert norm > 1


def test_a_users_own_step_can_be_taken_again_and_forced() -> None:
    model = Residual()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def train_step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)  # never zeroed
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    subject = Recipe(model=model, optimizer=optimizer, train_step=train_step)
    watch = models.watch(subject, "float64", False)
    records, states = [], [watch.state()]
    for step in range(3):
        records.append(watch.step(batch(step=step)))
        states.append(watch.state())
    watch.load(states[1])
    assert_same_records(watch.step(batch(step=1)), records[1])
    watch.load(states[1])
    forced = watch.step(batch(step=1), Forced(gradients={"last.bias": np.zeros(3)}))
    assert_same(forced.gradients["last.bias"], records[1].gradients["last.bias"])
    assert not np.array_equal(forced.after.values["last.bias"], records[1].after.values["last.bias"])


def test_an_error_in_a_users_own_step_changes_nothing() -> None:
    model = Residual()
    optimizer = torch.optim.Adam(model.parameters())

    def train_step(x: Any, y: Any) -> Any:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        raise ValueError("mine")

    before = bits(model, optimizer)
    watch = models.watch(Recipe(model=model, optimizer=optimizer, train_step=train_step), "float64", False)
    with pytest.raises(HarnessError, match=r"train_step.* raised ValueError: mine"):
        watch.step(batch())
    assert bits(model, optimizer) == before


# --- losses -----------------------------------------------------------------------------------------------------


def test_weights_multiply_each_examples_loss() -> None:
    weights, classes = RNG.uniform(1, 2, 6), {0: 2.0, 2: 3.0}
    factor = torch.tensor(weights * np.where(Y == 0, 2.0, np.where(Y == 2, 3.0, 1.0)))
    for loss in (nn.CrossEntropyLoss(), F.cross_entropy):
        subject = recipe(loss=loss, class_weight=classes)
        record = models.watch(subject, "float64", False).step(batch(weights=weights))
        _, value = hand(
            subject.model, lambda o: (factor * F.cross_entropy(o, torch.tensor(Y), reduction="none")).mean(), X
        )
        np.testing.assert_allclose(record.loss, value.item(), rtol=1e-14)
    subject = recipe(loss=nn.MSELoss(reduction="sum"))
    record = models.watch(subject, "float64", False).step(batch(target=Z, weights=weights))
    _, value = hand(
        subject.model,
        lambda o: (torch.tensor(weights)[:, None] * (o - torch.tensor(Z)) ** 2).sum(),
        X,
    )
    np.testing.assert_allclose(record.loss, value.item(), rtol=1e-14)
    assert subject.loss.reduction == "sum"
    with pytest.raises(HarnessError, match="give one with a `reduction`"):
        models.watch(recipe(loss=lambda o, t: F.mse_loss(o, t)), "float64", False).step(batch(weights=weights))


def test_a_penalty_is_added() -> None:
    subject = recipe()
    with_penalty = replace(subject, penalty=lambda m: 0.5 * (m.first.weight**2).sum())
    bare, penalised = (models.watch(r, "float64", False).step(batch()) for r in (subject, with_penalty))
    weight = subject.model.first.weight.detach().double().numpy()
    np.testing.assert_allclose(penalised.loss, bare.loss + 0.5 * (weight**2).sum(), rtol=1e-14)
    np.testing.assert_allclose(
        penalised.gradients["first.weight"], bare.gradients["first.weight"] + weight, rtol=1e-13, atol=1e-16
    )


# --- what is told about it --------------------------------------------------------------------------------------


def test_parameters_say_what_they_are() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, groups=3),
        nn.ConvTranspose1d(3, 2, 3),
        nn.GroupNorm(1, 2),
        nn.GRU(2, 2, num_layers=2, bidirectional=True, bias=False),
        nn.MultiheadAttention(4, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2, bias=False)),
        nn.PReLU(),
    )
    watch = models.watch(Recipe(model=model), "float32", True)
    assert [(p.layer, p.op, p.role) for p in watch.parameters] == [
        *(("0", "DepthwiseConv", role) for role in ("kernel", "bias")),
        *(("1", "ConvTranspose", role) for role in ("kernel", "bias")),
        *(("2", "GroupNorm", role) for role in ("gamma", "beta")),
        *(
            ("3", "GRU", role + end)
            for end in ("", "_reverse", "_l1", "_reverse_l1")
            for role in ("kernel", "recurrent_kernel")
        ),
        *(("4", "MultiHeadAttention", role) for role in ("in_kernel", "in_bias", "out_kernel", "out_bias")),
        *(("5", "", "") for _ in range(2)),
        ("6", "PReLU", "alpha"),
    ]


def test_the_update_rule_is_told_where_it_is_known() -> None:
    model = nn.Linear(2, 2)

    def rule(optimizer: Any, **kwargs: Any) -> Any:
        found = models.watch(recipe(model, optimizer=optimizer, **kwargs), "float32", False).rule()
        return found and found.optimizer

    adamw = rule(torch.optim.AdamW(model.parameters()))
    assert isinstance(adamw, Adam)
    assert (adamw.decay, adamw.weight_decay, adamw.epsilon) == ("decoupled", 0.01, 1e-8)
    assert isinstance(rule(torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)), SGD)
    groups = [{"params": [model.weight], "momentum": 0.1}, {"params": [model.bias], "momentum": 0.2}]
    assert rule(torch.optim.SGD(groups)) is None
    assert rule(torch.optim.Adam(model.parameters(), amsgrad=True)).amsgrad == "uncorrected"
    assert rule(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, dampening=0.1)).dampening == 0.1
    assert isinstance(rule(torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)), SGD)
    assert isinstance(rule(torch.optim.NAdam(model.parameters())), Nadam)
    assert rule(torch.optim.Rprop(model.parameters())) is None


def test_assign_writes_into_the_users_model() -> None:
    model = Residual()
    subject = Recipe(model=model)
    models.assign(subject, {"first.bias": np.arange(4.0), "norm.num_batches_tracked": np.array(7)})
    assert model.first.bias.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert model.state_dict()["norm.num_batches_tracked"] == 7
    with pytest.raises(HarnessError, match=r"has no parameter 'first'; it has first\.weight"):
        models.assign(subject, {"first": np.zeros(4)})
    with pytest.raises(HarnessError, match=r"shape \(4,\), the value given \(1,\)"):
        models.assign(subject, {"first.bias": np.zeros(1)})


def poisoned() -> Any:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    return model


def exported() -> Any:
    return torch.export.export(nn.Linear(5, 3), (torch.ones(1, 5),)).module()


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (lambda: Recipe(model=lambda x: x), "must be a torch.nn.Module"),
        (lambda: Recipe(model=poisoned()), "weight of the torch model holds NaN"),
        (lambda: Recipe(model=nn.LazyLinear(2)), "weight of the torch model has no shape yet"),
        (lambda: recipe(optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters())), "none of the model's parameters"),
        (lambda: recipe(optimizer="sgd"), "must be a torch.optim.Optimizer"),
        (lambda: recipe(schedule="cosine"), "must be an lr_scheduler"),
        (lambda: Recipe(model=nn.Linear(2, 2, device="meta")), "weight of the torch model lies on the meta device"),
        (lambda: Recipe(model=exported()), "is a torch.export graph, its mode is fixed"),
        (lambda: Recipe(model=nn.Sequential(exported())), "is a torch.export graph, its mode is fixed"),
        (lambda: Recipe(model=nn.Linear(2, 2), loss="mse"), r"is callable\(output, target\), such as .*, not 'mse'"),
        (lambda: recipe(loss=nn.MSELoss), r"such as nn.CrossEntropyLoss\(\), not the class MSELoss"),
    ],
)
def test_what_cannot_be_watched_is_told(subject: Callable[[], Recipe], message: str) -> None:
    with pytest.raises(HarnessError, match=message) as raised:
        models.watch(subject(), "float32", False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("layer", "x", "advice"),
    [
        (nn.Linear(5, 3), np.ones((6, 5), np.int64), r"x holds int64, most layers take floats: x.astype\('float32'\)"),
        (nn.Linear(5, 3), np.ones((6, 5), bool), "x holds bool, most layers take floats"),
        (nn.Conv1d(5, 3, 1), np.ones((6, 5, 2), np.uint8), "x holds uint8, most layers take floats"),
        (nn.Embedding(5, 3), np.ones((6, 5)), r"x holds float64, an embedding takes integers: x.astype\('int64'\)"),
    ],
)
def test_an_input_of_another_type_is_told_with_what_to_do(layer: nn.Module, x: np.ndarray, advice: str) -> None:
    watch = models.watch(Recipe(model=nn.Sequential(layer)), "float64", True)
    with pytest.raises(
        HarnessError, match=rf"the torch model at 0 \(\w+\) raised RuntimeError: .*; {advice}"
    ) as raised:
        _ = watch.step(Batch(inputs=(x,)))
    assert "\n" not in str(raised.value)
    with pytest.raises(HarnessError, match="shapes cannot be multiplied") as raised:
        _ = models.watch(Recipe(model=nn.Linear(5, 3)), "float64", True).step(Batch(inputs=(np.ones((6, 4)),)))
    assert "x holds" not in str(raised.value)


def test_a_dtype_named_in_the_model_is_told_with_what_to_do() -> None:
    class Named(nn.Linear):
        def forward(self, input: Any) -> Any:
            return super().forward(input) @ torch.from_numpy(np.ones((3, 3), np.float32))

    with pytest.raises(HarnessError, match=r"raised RuntimeError: .*; where the model names a dtype itself, let it"):
        _ = models.watch(recipe(Named(5, 3)), "float64", False).step(batch())


def test_a_loss_of_many_numbers_is_told() -> None:
    with pytest.raises(HarnessError, match=r"loss has shape \(6,\); it must be one number"):
        models.watch(recipe(loss=nn.CrossEntropyLoss(reduction="none")), "float64", False).step(batch())


class Stopped(nn.Module):
    """A module whose output is its input without a history: the same storage."""

    def forward(self, x: Any) -> Any:
        return x.detach()


@pytest.mark.parametrize("last", [False, True])
def test_a_detached_output_stays_detached(last: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), Stopped(), *([] if last else [nn.Linear(4, 2)]))
    x = np.ones((5, 3), np.float32)
    watched = models.watch(Recipe(model=model), "float64", False)
    name, width = ("0", 4) if last else ("2", 2)
    for forced in (None, Forced(activations={"0": np.full((5, 4), 0.5)})):
        record = watched.pull_back(Batch(inputs=(x,)), {name: np.ones((5, width))}, forced)
        assert record.outputs == (name,)
        assert record.gradients["0.weight"] is None
        assert "0" not in record.cotangents

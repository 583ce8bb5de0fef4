"""What a network or a loop can do after, or unlike, the first recorded step. No Gram may be wrong without a word."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import toppo
from toppo.capture.errors import CaptureError
from toppo.capture.recorder import Recorder, record

TASKS = ["a", "b"]
K, N = 2, 12
SAMPLES = torch.arange(N) % K


def start(path: Path, model: nn.Module, tasks: list[str] = TASKS, **options: Any) -> Recorder:
    return record(path / "dump", model, tasks=tasks, **{"every": 1, "way": "walks", **options})


def grams(path: Path) -> np.ndarray:
    """The Gram of every record, (S, K, K)."""
    found: np.ndarray = toppo.open_dump(path / "dump").values("shared_gram")[:, 0]
    return found


def true_gram(losses: Any, parameters: Any) -> np.ndarray:
    """The Gram of some losses in float64."""
    rows, parameters = [], list(parameters)
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([torch.zeros(0), *(g.flatten() for g in found if g is not None)]).double())
    J = torch.stack(rows).numpy()
    return np.asarray(J @ J.T)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def trunk_losses(model: nn.Sequential, x: Tensor) -> Tensor:
    """Two losses whose heads are one layer, so that all of the model is shared."""
    y = model(x)
    return torch.stack([((y - 1) ** 2).mean(), (y**3).mean()])


X = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))


class Sum(nn.Module):
    """Two tensors that are added before they are used, so that they have one gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.d = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.w + self.d)


@pytest.mark.parametrize("way", ["walks", "vectorised"])
def test_parameters_that_are_added_do_not_share_their_rows(tmp_path: Path, way: str) -> None:
    model = Sum()
    with start(tmp_path, model, way=way, accumulate=3, slabs=True) as recorder:
        for part in X.split(4):
            recorder.backward(trunk_losses(model, part))
    whole = [sum(trunk_losses(model, part)[i] for part in X.split(4)) for i in range(K)]
    np.testing.assert_allclose(grams(tmp_path)[0], true_gram(whole, model.parameters()), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_around_backward_does_not_round_the_gram(tmp_path: Path, dtype: torch.dtype) -> None:
    model = net()
    with torch.autocast("cpu", dtype=dtype):  # where the backward pass itself has fewer bits too
        losses = 4096 * trunk_losses(model, X)
        true = true_gram(losses, model.parameters())
        rows = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in losses]
        with start(tmp_path, model, combiner="sum") as recorder:
            recorder.backward(losses)
    np.testing.assert_allclose(grams(tmp_path)[0], true, rtol=1e-5)
    for p, a, b in zip(model.parameters(), *rows, strict=True):
        torch.testing.assert_close(p.grad, a + b)


def test_products_of_fewer_bits_do_not_round_the_gram(tmp_path: Path) -> None:
    model = net()
    before = torch.get_float32_matmul_precision()
    try:
        losses = trunk_losses(model, X)
        true = true_gram(losses, model.parameters())
        torch.set_float32_matmul_precision("medium")
        with start(tmp_path, model) as recorder:
            recorder.backward(losses)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_allclose(grams(tmp_path)[0], true, rtol=1e-5)


@pytest.mark.parametrize(
    "turn",
    [
        lambda w: w.transpose(0, 1),
        lambda w: w.transpose(0, -2),
        lambda w: w.permute(1, 0),
        lambda w: w.permute(-2, -1),
        lambda w: w.t().t(),
    ],
)
def test_a_square_matrix_keeps_its_orientation(tmp_path: Path, turn: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.ParameterList([torch.randn(4, 4)])
    for name in ("samples", "walks"):
        y = X @ turn(model[0])
        per_sample = ((y - 1) ** 2).mean(1)
        losses = [per_sample[k == SAMPLES].mean() for k in range(K)]
        with start(tmp_path / name, model, way=name, slabs=True) as recorder:
            recorder.backward(losses, samples=SAMPLES)
    by_samples, by_walks = (toppo.open_dump(tmp_path / n / "dump")["shared_grad"][0, 0] for n in ("samples", "walks"))
    np.testing.assert_allclose(by_samples, by_walks, rtol=1e-4, atol=1e-6)


def test_samples_refuse_a_kernel_with_its_axes_in_another_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.ParameterList([torch.randn(3, 3, 3, 3)])
    y = functional.conv2d(torch.randn(N, 3, 5, 5), model[0].transpose(0, 1)).flatten(1).mean(1)
    losses = [(y[k == SAMPLES] ** 2).mean() for k in range(K)]
    with start(tmp_path, model, way="samples") as recorder, pytest.raises(CaptureError, match="in another order"):
        recorder.backward(losses, samples=SAMPLES)


def test_samples_that_start_to_mix_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 1))

    def losses() -> list[Tensor]:
        y = (model(X)[:, 0] - 1) ** 2
        return [y[k == SAMPLES].mean() for k in range(K)]

    model.eval()
    with start(tmp_path, model, way="samples") as recorder, caplog.at_level(logging.WARNING):
        recorder.backward(losses(), samples=SAMPLES)
        assert not caplog.text
        model.train()
        given = losses()
        true = true_gram(given, model.parameters())
        recorder.backward(given, samples=SAMPLES)
    assert "step 1: the way 'samples' no longer gives the gradients of K walks" in caplog.text
    np.testing.assert_allclose(grams(tmp_path)[1], true, rtol=1e-4)


def test_a_step_without_gradients_by_task_says_where_it_went(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 1))
    with start(tmp_path, model, way="samples", combiner="mgda") as recorder, caplog.at_level(logging.WARNING):
        for extra in (0, 3):
            y = (model(torch.cat([X, X[:extra]]))[:, 0] - 1) ** 2
            recorder.backward([y[:N][k == SAMPLES].mean() for k in range(K)], samples=SAMPLES)
    assert "so it is not recorded, and the step is along the sum of the losses" in caplog.text


def test_a_parameter_that_is_replaced_is_followed(tmp_path: Path) -> None:
    model = net()
    with start(tmp_path, model) as recorder:
        recorder.backward(trunk_losses(model, X))
        model.load_state_dict(net(1).state_dict(), assign=True)
        for p in model.parameters():
            p.requires_grad_()
        losses = trunk_losses(model, X)
        true = true_gram(losses, model.parameters())
        recorder.backward(losses)
    np.testing.assert_allclose(grams(tmp_path)[1], true, rtol=1e-5)


@pytest.mark.parametrize("way", ["walks", "vectorised"])
def test_a_parameter_that_is_frozen_counts_as_zero_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    model = net()
    with start(tmp_path, model, way=way, combiner="mgda") as recorder, caplog.at_level(logging.WARNING):
        recorder.backward(trunk_losses(model, X))
        model.zero_grad()
        model[0].requires_grad_(False)
        losses = trunk_losses(model, X)
        true = true_gram(losses, model[2].parameters())
        recorder.backward(losses)
    assert "parameter 0.weight is frozen, so its Grams are 0 as long as it is" in caplog.text
    np.testing.assert_allclose(grams(tmp_path)[1], true, rtol=1e-5)
    assert model[0].weight.grad is None


def test_parameters_that_join_later_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    model[0].requires_grad_(False)
    with start(tmp_path, model) as recorder, caplog.at_level(logging.WARNING):
        recorder.backward(trunk_losses(model, X))
        model[0].requires_grad_()
        model.append(nn.Linear(2, 2))
        recorder.backward(trunk_losses(model, X))
    assert "parameter 0.weight is now reached by task 'a'" in caplog.text
    assert "parameter 3.weight was added after the first record" in caplog.text


def test_a_gradient_that_was_zero_at_first_is_looked_at_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Gated(nn.Module):
        """The second task reaches `late` through a gate that starts at zero."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.trunk, self.late, self.gate = nn.Linear(4, 4), nn.Linear(4, 1), nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> list[Tensor]:
            seen = torch.tanh(self.trunk(x))
            late = self.late(seen)[:, 0]
            return [(late**2).mean(), ((seen.sum(1) + self.gate * late - 1) ** 2).mean()]

    model = Gated()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start(tmp_path, model) as recorder, caplog.at_level(logging.WARNING):
        for _ in range(4):
            optimizer.zero_grad()
            recorder.backward(model(X))
            optimizer.step()
    assert "parameter late.weight now has a gradient of 2 tasks and had that of one" in caplog.text


def test_complex_parameters_are_refused(tmp_path: Path) -> None:
    model = nn.ParameterList([torch.randn(4, dtype=torch.complex64)])
    with start(tmp_path, model) as recorder, pytest.raises(CaptureError, match="parameter 0 is complex"):
        recorder.backward([(model[0].abs() ** 2).sum(), (model[0].real ** 2).sum()])


OWN = ["loss", "present", *(f"shared{end}" for end in ("", "_gram", "_layer_gram", "_weights"))]
OWN_OF_FAIRGRAD = [f"shared_{name}" for name in ("weights", "residual", "iterations", "status", "ridge")]


@pytest.mark.parametrize(
    ("combiner", "name"),
    [*((None, name) for name in OWN), *(("fairgrad", name) for name in OWN_OF_FAIRGRAD), ("pcgrad", "shared_order")],
)
def test_a_number_cannot_take_the_place_of_the_recorders_own(tmp_path: Path, combiner: str | None, name: str) -> None:
    model = net()
    with start(tmp_path, model, combiner=combiner) as recorder:
        with pytest.raises(CaptureError, match=f"`{name}`: the recorder has numbers of this name"):
            recorder.backward(trunk_losses(model, X), **{name: 3.0})
        recorder.backward(trunk_losses(model, X))
        with pytest.raises(CaptureError, match=f"`{name}`: the recorder has numbers of this name"):
            recorder.backward(trunk_losses(model, X), **{name: 3.0})


@pytest.mark.parametrize("way", ["walks", "vectorised", None])
def test_a_loss_that_is_not_finite_leaves_the_other_tasks_alone(tmp_path: Path, way: str | None) -> None:
    model = net()
    with start(tmp_path, model, way=way) as recorder:
        recorder.backward(trunk_losses(model, X))
        losses = list(trunk_losses(model, X).unbind())
        true = true_gram(losses[:1], model.parameters())
        y = model(X)
        recorder.backward(torch.stack([((y - 1) ** 2).mean(), (y**3).mean() / 0]))
    found = grams(tmp_path)[1]
    np.testing.assert_allclose(found[0, 0], true[0, 0], rtol=1e-5)
    assert not np.isfinite(found[1, 1])


def test_samples_are_not_refused_for_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 1))
    with start(tmp_path, model, way="samples") as recorder:
        y = (model(X)[:, 0] - 1) ** 2
        recorder.backward([y[SAMPLES == 0].mean(), y[SAMPLES == 1].mean() * torch.inf], samples=SAMPLES)
    assert np.isfinite(grams(tmp_path)[0][0, 0])


def test_a_window_hides_no_loss_and_no_change_of_weights(tmp_path: Path) -> None:
    model = net()
    with start(tmp_path, model, accumulate=2) as recorder:
        recorder.backward(trunk_losses(model, X) * torch.tensor([torch.nan, 1.0]))
        recorder.backward(trunk_losses(model, X))
        recorder.backward(trunk_losses(model, X), weights=[1, 0])
        with pytest.raises(CaptureError, match="`weights`: differ between two calls of one step"):
            recorder.backward(trunk_losses(model, X), weights=[0, 1])
    assert np.isnan(toppo.open_dump(tmp_path / "dump").values("loss")[0, 0]).tolist() == [True, False]


def test_a_call_that_failed_is_not_in_the_gram(tmp_path: Path) -> None:
    model = net()

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Tensor:
            fails.append(dy)
            if len(fails) == 3:  # after the two walks, in the backward pass itself
                raise RuntimeError("a hook failed")
            return dy

    fails: list[Tensor] = []
    with start(tmp_path, model, accumulate=2) as recorder:
        recorder.backward(trunk_losses(model, X))
        with pytest.raises(RuntimeError, match="a hook failed"):
            recorder.backward(Fails.apply(trunk_losses(model, X)))
        for _ in range(3):
            recorder.backward(trunk_losses(model, X))
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [1]  # step 0 is not recorded


def test_a_single_number_can_be_shared(tmp_path: Path) -> None:
    model = nn.ParameterList([torch.tensor(2.0), torch.randn(3)])
    losses = [model[0] * model[1].sum(), model[0] ** 2 + model[1][0]]
    true = true_gram(losses, model.parameters())
    with start(tmp_path, model, slabs=True, combiner="fairgrad") as recorder:
        recorder.backward(losses)
    np.testing.assert_allclose(grams(tmp_path)[0], true, rtol=1e-5)


def test_the_first_batch_may_have_one_task(tmp_path: Path) -> None:
    model = net()
    with start(tmp_path, model) as recorder:
        recorder.backward({"a": trunk_losses(model, X)[0]})
        recorder.backward(trunk_losses(model, X))
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [1]


def test_a_sparse_gradient_stays_sparse_under_a_combiner(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Embedding(6, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters())
    index = torch.tensor([0, 2, 2])
    with start(tmp_path, model, combiner="mgda") as recorder:
        for _ in range(2):
            optimizer.zero_grad()
            recorder.backward([(model(index) ** 2).mean(), model(index)[0].sum()])
            optimizer.step()
    assert model.weight.grad is not None and model.weight.grad.is_sparse


def test_a_model_with_a_part_called_module_keeps_its_names(tmp_path: Path) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.module, self.weight = nn.Linear(4, 2), nn.Parameter(torch.randn(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x) * self.weight

    model = Outer()
    with start(tmp_path, model) as recorder:
        recorder.backward(((model(X) - 1) ** 2).mean(0) @ torch.ones(2, 2))
    assert set(toppo.open_dump(tmp_path / "dump").layer_names("shared")) == {"module.weight", "module.bias", "weight"}


def test_the_first_batch_is_not_kept(tmp_path: Path) -> None:
    model = net()
    x = X.clone().requires_grad_()
    with start(tmp_path, model) as recorder:
        recorder.backward(trunk_losses(model, x))
        seen = weakref.ref(x)
        del x
        assert seen() is None


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_gradients_of_any_length_have_a_gram(tmp_path: Path, scale: float) -> None:
    model = net()
    losses = trunk_losses(model, X) * torch.tensor([1.0, scale])
    unscaled = true_gram(trunk_losses(model, X), model.parameters())
    with start(tmp_path, model) as recorder:
        recorder.backward(losses)
    factors = np.array([1.0, scale])
    np.testing.assert_allclose(grams(tmp_path)[0], unscaled * factors * factors[:, None], rtol=1e-5)


def test_shared_parameters_outside_of_every_side_are_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    with caplog.at_level(logging.WARNING), start(tmp_path, model, sides={"first": model[0]}) as recorder:
        for _ in range(3):
            recorder.backward(trunk_losses(model, X))
    assert not caplog.records  # model[2] is shared too, and the first summary says that it is in no side


@pytest.mark.parametrize("combiner", ["dwa", "famo"])
def test_a_combiner_that_misses_a_loss_leaves_the_gradients_alone(tmp_path: Path, combiner: str) -> None:
    model = net()
    with start(tmp_path, model, combiner=combiner) as recorder:
        with pytest.raises(CaptureError, match="needs every task's loss, and task 'b' is absent"):
            recorder.backward({"a": trunk_losses(model, X)[0]})
        assert all(p.grad is None for p in model.parameters())
        recorder.backward(trunk_losses(model, X) ** 2)  # the same step, now with both


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"weights": "ab"}, "`weights`: not numbers"), ({"samples": ["a"] * N}, "`samples`: not numbers")],
)
def test_words_in_place_of_numbers_are_named(tmp_path: Path, wrong: dict[str, Any], named: str) -> None:
    model = net()
    with start(tmp_path, model) as recorder, pytest.raises(CaptureError, match=named) as caught:
        recorder.backward(trunk_losses(model, X), **wrong)
    assert "\n" not in str(caught.value)

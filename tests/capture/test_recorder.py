"""`toppo.record`: the same `.grad` as without it, and Grams equal to those of a float64 loop."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toppo
import toppo_diag
from tests.capture.networks import (
    ENCODERS,
    TASKS,
    Checkpointed,
    Heads,
    N,
    all_samples,
    build,
    grams,
    mlp,
    own_samples,
    reference_gradients,
    vectors,
)
from toppo.capture.errors import CaptureError
from toppo.capture.recorder import Recorder, record
from toppo.capture.ways import WAYS

SAMPLES = torch.arange(3).repeat(N // 3)  # not sorted by task

FP32 = 2e-5
"""How far an fp32 Gram may be from the float64 one, over sqrt(G_ii G_jj): some 100 roundings of 6e-8, with room."""


def losses_of(model: nn.Module, x: Tensor, own: bool = False) -> list[Tensor]:
    """K losses, with the same dropout at every call."""
    x = x.to(next(model.parameters()).dtype) if x.is_floating_point() else x
    outputs = model(x)
    return own_samples(outputs, SAMPLES) if own else all_samples(outputs)


def start(path: Path, model: nn.Module, **options: Any) -> Recorder:
    return record(path / "dump", model, tasks=TASKS, **{"every": 1, **options})


def layers(path: Path, side: str = "shared") -> tuple[list[str], np.ndarray]:
    """Names and Grams (L, K, K) of the layers in the last record."""
    dump = toppo.open_dump(path / "dump")
    return list(dump.layer_names(side)), dump.values(f"{side}_layer_gram")[-1, 0]


def assert_close(found: np.ndarray, wanted: np.ndarray, tolerance: float = FP32) -> None:
    norms = np.sqrt(np.diagonal(wanted.sum(0)))
    assert np.abs(found - wanted).max(axis=0) == pytest.approx(0, abs=1e-30) or np.all(
        np.abs(found - wanted) <= tolerance * np.outer(norms, norms)
    )


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def assert_same_bits(a: dict[str, Tensor | None], b: dict[str, Tensor | None]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        one, other = a[name], b[name]
        assert (one is None and other is None) or torch.equal(one, other), name  # type: ignore[arg-type]


@pytest.mark.parametrize("every", [1, 2], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("form", ["list", "dict", "tensor"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_grad_has_the_bits_of_the_sum(kind: str, form: str, every: int, tmp_path: Path) -> None:
    model, x = build(kind)
    twin = copy.deepcopy(model)
    with start(tmp_path, model, every=every) as recorder:
        for step in range(2):
            torch.manual_seed(step)
            model.zero_grad()
            losses: Any = losses_of(model, x)
            if form == "dict":
                losses = dict(zip(TASKS, losses, strict=True))
            recorder.backward(torch.stack(losses) if form == "tensor" else losses)
            torch.manual_seed(step)
            twin.zero_grad()
            plain = losses_of(twin, x)
            (torch.stack(plain).sum() if form == "tensor" else sum(plain[1:], plain[0])).backward()
            assert_same_bits(gradients(model), gradients(twin))


@pytest.mark.parametrize("way", ["walks", "vectorised", "samples", None])
@pytest.mark.parametrize("kind", ENCODERS)
def test_layer_grams_are_those_of_a_float64_loop(kind: str, way: Any, tmp_path: Path) -> None:
    if way == "samples" and kind in ("batchnorm", "checkpointed"):
        pytest.skip("this network has no such way; the refusal has a test of its own")
    model, x = build(kind)
    compute = lambda m: losses_of(m, x, own=True)  # noqa: E731
    if kind in ("checkpointed", "attention"):
        model.eval()  # the reference would draw other dropout
    with start(tmp_path, model, way=way, slabs=True) as recorder:
        torch.manual_seed(7)
        recorder.backward(compute(model), samples=SAMPLES)
    names, found = layers(tmp_path)
    rows = reference_gradients(model, compute, names)
    assert_close(found, grams(rows))
    dump = toppo.open_dump(tmp_path / "dump")
    wanted = np.concatenate([rows[name].reshape(3, -1) for name in names], axis=1)
    slab = dump.slab_values("shared", 0, 0)
    assert np.abs(slab - wanted).max() <= FP32 * np.linalg.norm(wanted, axis=1).max()
    assert dump.values("shared_gram")[0, 0] == pytest.approx(found.sum(0))
    assert toppo.verify(tmp_path / "dump").ok


@pytest.mark.parametrize(
    ("kind", "why"), [("batchnorm", "BatchNorm"), ("checkpointed", "checkpoint"), ("mlp", "others. samples")]
)
def test_samples_are_refused_where_they_do_not_give_the_gradients(kind: str, why: str, tmp_path: Path) -> None:
    model, x = build(kind)
    samples = SAMPLES.roll(1) if kind == "mlp" else SAMPLES
    with pytest.raises(toppo.UsageError, match=why), start(tmp_path, model, way="samples") as recorder:
        recorder.backward(losses_of(model, x, own=True), samples=samples)
    assert not (tmp_path / "dump").exists()
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x, own=True), samples=samples)
    capture = toppo.open_dump(tmp_path / "dump").attrs["capture"]
    assert capture["way"] != "samples"
    assert capture["refused"]["samples"]


@pytest.mark.parametrize("sorted_by_task", [True, False])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (2, 3, 7)])
@pytest.mark.parametrize("kind", ["mlp", "cnn", "attention", "recurrent"])
def test_samples_of_any_order_and_number(
    kind: str, sizes: tuple[int, ...], sorted_by_task: bool, tmp_path: Path
) -> None:
    model, x = build(kind)
    model.eval()
    samples = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    if not sorted_by_task:
        samples = samples[torch.randperm(N)]
    compute = lambda m: own_samples(m(x.to(next(m.parameters()).dtype) if x.is_floating_point() else x), samples)  # noqa: E731
    with start(tmp_path, model, way="samples") as recorder:
        recorder.backward(compute(model), samples=samples)
    names, found = layers(tmp_path)
    assert_close(found, grams(reference_gradients(model, compute, names)))


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({"way": "samples"}, 64), ({"way": "walks"}, 136), ({"way": "samples", "slabs": True}, 136)],
)
def test_the_peak_of_a_recorded_step_is_told(
    options: dict[str, Any], numbers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, x = build("mlp")  # the largest layer has 8 x 8 numbers, all have 6 x 8 + 8 + 8 + 8 + 8 x 8
    with start(tmp_path, model, **options) as recorder:
        recorder.backward(losses_of(model, x, own=True), samples=SAMPLES)
    assert f"{3 * 4 * numbers / 1e6:.3g} MB at once" in capsys.readouterr().out


def test_a_step_that_does_not_allow_the_way_walks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, way="samples") as recorder:
        recorder.backward(losses_of(model, x, own=True), samples=SAMPLES)
        recorder.backward(losses_of(model, x, own=True))
        second = layers_of(model, x)
        extra = [loss + model.encoder[3].weight.prod() for loss in losses_of(model, x, own=True)]
        recorder.backward(extra, samples=SAMPLES)
        recorder.backward(losses_of(model, x, own=True), samples=SAMPLES[:7])
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1, 2]
    assert caplog.text.count("not recorded") == 1
    assert_close(dump.values("shared_layer_gram")[1, 0], second)


def layers_of(model: nn.Module, x: Tensor) -> np.ndarray:
    """The reference's layer Grams of the encoder, each task with its own samples."""
    names = [name for name, _ in model.named_parameters() if name.startswith("encoder")]
    return grams(reference_gradients(model, lambda m: losses_of(m, x, own=True), names))


def test_a_layer_whose_gradient_is_rounding_refuses_no_way(tmp_path: Path) -> None:
    class Attention(nn.Module):
        """Attention with a key bias of its own, whose gradient is zero but for rounding."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = ((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)).mean(1)
            return y

    torch.manual_seed(0)
    model = Heads(Attention(), 8)
    with start(tmp_path, model, way="samples") as recorder:
        recorder.backward(own_samples(model(torch.randn(N, 5, 6)), SAMPLES), samples=SAMPLES)
    assert toppo.open_dump(tmp_path / "dump").attrs["capture"]["way"] == "samples"


def test_a_step_after_a_mistake_is_a_step_of_its_own(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, every=10) as recorder:
        recorder.backward(losses_of(model, x), accuracy=0.5)
        with pytest.raises(toppo.DumpError, match="accuracy"):
            recorder.backward(losses_of(model, x), step=10, accuracy=[0.1, 0.2])
        model.zero_grad()
        recorder.backward(losses_of(model, x), step=11)
        recorder.backward(losses_of(model, x), step=20, accuracy=0.7)
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0, 20]


def test_what_is_shared_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = build("mlp")
    model.spare = nn.Linear(2, 2)
    model.encoder[0].bias.requires_grad_(False)
    model.encoder.twin = nn.Identity()
    model.encoder.twin.weight = model.encoder[3].weight
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x))
    names, _ = layers(tmp_path)
    assert names == ["encoder.0.weight", "encoder.1.weight", "encoder.1.bias", "encoder.3.weight"]
    capture = toppo.open_dump(tmp_path / "dump").attrs["capture"]
    assert capture["task_only"] == {
        f"heads.{i}.{part}": task for i, task in enumerate(TASKS) for part in ("weight", "bias")
    }
    assert capture["unused"] == ["spare.weight", "spare.bias"]
    assert capture["frozen"] == ["encoder.0.bias"]
    assert capture["tied"] == {"encoder.twin.weight": "encoder.3.weight"}
    printed = capsys.readouterr().out
    for part in ("only left reaches: heads.0.weight", "no loss reaches: spare.weight", "frozen: encoder.0.bias"):
        assert part in printed


@pytest.mark.parametrize("form", ["stacked", "concatenated"])
def test_heads_are_found_where_the_graph_says_too_much(form: str, tmp_path: Path) -> None:
    model, x = build("mlp")

    def losses() -> Tensor:
        if form == "stacked":
            return torch.stack(all_samples(model(x)))
        outputs = torch.stack(model(x), dim=1)  # (N, K, 2): every loss seems to depend on every head
        return (outputs**2).mean((0, 2))

    with start(tmp_path, model) as recorder:
        recorder.backward(losses())
    names, _ = layers(tmp_path)
    assert all(name.startswith("encoder") for name in names)


def test_a_head_that_starts_at_zero_leaves_the_trunk_shared(tmp_path: Path) -> None:
    model, x = build("mlp")
    nn.init.zeros_(model.heads[0].weight)
    model.heads = model.heads[:2]
    with record(tmp_path / "dump", model, tasks=TASKS[:2], every=1) as recorder:
        recorder.backward((torch.stack(model(x), dim=1) ** 2).mean((0, 2)))
    names, _ = layers(tmp_path)
    assert "encoder.0.weight" in names


def test_sides_are_modules(tmp_path: Path) -> None:
    model, x = build("mlp")
    sides = {"early": model.encoder[:2], "late": model.encoder[3]}
    with start(tmp_path, model, sides=sides) as recorder:
        recorder.backward(losses_of(model, x))
    assert layers(tmp_path, "early")[0] == ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"]
    assert layers(tmp_path, "late")[0] == ["encoder.3.weight"]


@pytest.mark.parametrize("spec", ["mean", "sum", "fairgrad", "pcgrad", "mgda", "upgrad"])
def test_a_combiner_decides_the_step(spec: str, tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, combiner=spec, every=2) as recorder:
        for step in range(3):
            if step != 1:
                model.zero_grad()  # the second step adds to what the first one left
            before = gradients(model)
            recorder.backward(losses_of(model, x))
            if step == 0:
                first = gradients(model)
    dump = toppo.open_dump(tmp_path / "dump")
    names = list(dump.layer_names("shared"))
    rows = reference_gradients(model, lambda m: losses_of(m, x), names)
    w = dump.values("shared_weights")[0, 0]
    combiner = toppo.make(spec)
    order = dump.values("shared_order")[0, 0] if combiner.needs_order else None
    assert w == pytest.approx(combiner.combine(dump.values("shared_gram")[0, 0], order=order).weights)
    for name in names:
        wanted = np.tensordot(w, rows[name], axes=1)
        grad = first[name]
        assert grad is not None
        assert grad.numpy() == pytest.approx(wanted, abs=1e-5 * np.abs(rows[name]).max() * max(1, w.max()))
    assert first["heads.0.weight"] is not None  # a head has the gradient of its own task's loss
    assert before["heads.0.weight"] is None


def test_an_accumulated_gradient_stays_under_a_combiner(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, combiner="fairgrad") as recorder:
        recorder.backward(losses_of(model, x))
        once = gradients(model)
        recorder.backward(losses_of(model, x))
    for name, grad in gradients(model).items():
        assert grad is not None
        assert grad.numpy() == pytest.approx(2 * once[name].numpy(), rel=1e-4, abs=1e-6), name  # type: ignore[union-attr]


def test_a_combiner_that_reads_losses_needs_every_task(tmp_path: Path) -> None:
    model, x = build("mlp")
    with pytest.raises(toppo.UsageError, match="'right' is absent"), start(tmp_path, model, combiner="dwa") as recorder:
        recorder.backward([*losses_of(model, x)[:2], None])


def test_several_models_are_one_module_list(tmp_path: Path) -> None:
    with pytest.raises(toppo.UsageError, match=r"nn\.ModuleList"):
        start(tmp_path, [mlp()])  # type: ignore[arg-type]


def test_optional_numbers(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x), accuracy=[0.1, 0.2, 0.3])
        recorder.backward(losses_of(model, x), grad_norm=torch.tensor(3.0))
    dump = toppo.open_dump(tmp_path / "dump")
    assert np.isnan(dump.values("accuracy")[1]).all()
    assert np.isnan(dump.values("grad_norm")[0]).all()
    assert dump.values("grad_norm")[1] == 3


def test_an_optimizer_in_the_backward_pass_steps_once(tmp_path: Path) -> None:
    model, x = build("mlp")
    steps: list[nn.Parameter] = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(steps.append)
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x))
    assert len(steps) == len(list(model.parameters()))


def test_sides_can_have_combiners_of_their_own(tmp_path: Path) -> None:
    model, x = build("mlp")
    sides = {"early": model.encoder[:2], "late": model.encoder[3]}
    with start(tmp_path, model, sides=sides, combiner={"late": "fairgrad"}) as recorder:
        recorder.backward(losses_of(model, x))
    dump = toppo.open_dump(tmp_path / "dump")
    assert "late_weights" in dump
    assert "early_weights" not in dump
    rows = reference_gradients(model, lambda m: losses_of(m, x), ["encoder.0.weight"])["encoder.0.weight"]
    assert model.encoder[0].weight.grad.numpy() == pytest.approx(rows.sum(0), abs=1e-5 * np.abs(rows).max())


def test_weights_decide_the_step(tmp_path: Path) -> None:
    model, x = build("mlp")
    w = [0.5, 2.0, 0.0]
    twin = copy.deepcopy(model)
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x), weights=w)
    torch.stack([weight * loss for weight, loss in zip(w, losses_of(twin, x), strict=True)]).sum().backward()
    assert_same_bits(gradients(model), gradients(twin))
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.values("shared_weights")[0, 0].tolist() == w
    names = list(dump.layer_names("shared"))
    assert_close(layers(tmp_path)[1], grams(reference_gradients(model, lambda m: losses_of(m, x), names)))


def test_an_absent_task_is_not_a_zero_gradient(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x))
        model.zero_grad()
        losses = losses_of(model, x)
        recorder.backward({"left": losses[0], "right": losses[2]})
        recorder.backward([losses_of(model, x)[0], None, torch.ones(())])
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.present[:, 0].tolist() == [[True] * 3, [True, False, True], [True, False, True]]
    gram = dump.values("shared_gram")[1, 0]
    assert np.isnan(gram[1]).all()
    assert np.isnan(gram[:, 1]).all()
    assert np.isfinite(gram[np.ix_([0, 2], [0, 2])]).all()
    assert np.isnan(dump.values("loss")[1, 0, 1])


def test_a_loss_that_is_not_finite_is_recorded_and_training_goes_on(tmp_path: Path) -> None:
    model, x = build("mlp")
    twin = copy.deepcopy(model)
    with start(tmp_path, model) as recorder:
        losses = losses_of(model, x)
        recorder.backward([losses[0], losses[1] * torch.nan, losses[2]])
    plain = losses_of(twin, x)
    (plain[0] + plain[1] * torch.nan + plain[2]).backward()
    for name, grad in gradients(model).items():
        assert torch.equal(grad, gradients(twin)[name]) or bool(grad.isnan().all())  # type: ignore[arg-type, union-attr]
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.values("shared_finite")[0, 0].tolist() == [1, 0, 1]
    assert dump.present[0, 0].all()
    assert np.isfinite(dump.values("shared_gram")[0, 0][np.ix_([0, 2], [0, 2])]).all()


def test_a_combiner_steps_along_the_sum_where_a_gradient_is_not_finite(tmp_path: Path, caplog: Any) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, combiner="fairgrad") as recorder, caplog.at_level(logging.WARNING):
        losses = losses_of(model, x)
        recorder.backward([losses[0], losses[1] * torch.inf, losses[2]])
    assert "not finite" in caplog.text
    assert toppo.open_dump(tmp_path / "dump").values("shared_weights")[0, 0].tolist() == [1, 1, 1]


def test_accumulated_steps_have_the_gram_of_the_summed_gradient(tmp_path: Path) -> None:
    model, x = build("mlp")
    parts = x.split(4)
    compute = lambda m: [  # noqa: E731
        sum(losses_of(m, part)[i] for part in parts) / 3 for i in range(3)
    ]
    with start(tmp_path, model, accumulate=3, slabs=True) as recorder:
        for _ in range(2):
            for part in parts:
                recorder.backward([loss / 3 for loss in losses_of(model, part)])
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1]
    names, found = layers(tmp_path)
    assert_close(found, grams(reference_gradients(model, compute, names)))
    assert dump.values("loss")[0, 0] == pytest.approx([float(loss.detach()) for loss in compute(model)], rel=1e-5)


def test_a_loop_can_say_where_its_steps_end(tmp_path: Path) -> None:
    model, x = build("mlp")
    parts = x.split(4)
    with start(tmp_path, model, accumulate=3) as recorder:
        for step, taken in enumerate((parts, parts[2:], parts[:2])):
            for n, part in enumerate(taken):
                recorder.backward(losses_of(model, part), step=step, ends_step=n == len(taken) - 1)
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1, 2]
    names, found = layers(tmp_path)
    last = lambda m: [sum(losses_of(m, part)[i] for part in parts[:2]) for i in range(3)]  # noqa: E731
    assert_close(found, grams(reference_gradients(model, last, names)))


def test_a_step_of_several_calls_has_to_be_announced(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model) as recorder, pytest.raises(CaptureError, match="accumulate=2"):
        recorder.backward(losses_of(model, x), ends_step=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    model, x = build("mlp")
    model = model.to(dtype)
    with start(tmp_path, model, way="walks") as recorder:
        recorder.backward(losses_of(model, x))
    names, found = layers(tmp_path)
    rows = reference_gradients(model, lambda m: losses_of(m, x), names)
    # bfloat16 has 8 bits: each activation and gradient is rounded to 4e-3, and there are some ten of them in a row.
    assert_close(found, grams(rows), 1e-12 if dtype == torch.float64 else 0.1)


def test_autocast_and_a_scaler_leave_unscaled_gradients(tmp_path: Path) -> None:
    model, x = build("mlp")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    start_values = copy.deepcopy(model)
    with start(tmp_path, model, scaler=scaler, way="walks", slabs=True) as recorder:
        with torch.autocast("cpu", torch.bfloat16):
            losses = losses_of(model, x)
        recorder.backward([loss.float() for loss in losses])
        scaled = model.encoder[0].weight.grad.clone()
        scaler.step(optimizer)
        scaler.update()
    names, found = layers(tmp_path)
    rows = reference_gradients(start_values, lambda m: losses_of(m, x), names)
    assert_close(found, grams(rows), 0.1)
    total = rows["encoder.0.weight"].sum(0)
    assert (scaled.numpy() / 1024) == pytest.approx(total, abs=0.05 * np.abs(total).max())
    slab = toppo.open_dump(tmp_path / "dump").slab_values("shared", 0, 0)
    assert np.linalg.norm(slab, axis=1) == pytest.approx(np.sqrt(np.diagonal(found.sum(0))), rel=1e-5)


@pytest.mark.slow
def test_a_compiled_model(tmp_path: Path) -> None:
    model, x = build("mlp")
    compiled = torch.compile(model)
    with start(tmp_path, compiled) as recorder:
        for _ in range(2):
            recorder.backward(losses_of(compiled, x))
    names, found = layers(tmp_path)
    assert names[0] == "encoder.0.weight"
    assert_close(found, grams(reference_gradients(model, lambda m: losses_of(m, x), names)))


def test_steps_of_a_new_multiple_are_recorded(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, every=10) as recorder:
        for step in (3, 4, 9, 10, 12, 19, 31, 31, 32):
            recorder.backward(losses_of(model, x), step=step)
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [3, 10, 31]


def test_a_resumed_run_goes_back(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model, every=10) as recorder:
        for step in range(35):
            recorder.backward(losses_of(model, x), step=step)
    with start(tmp_path, model, every=10, exist="resume") as recorder:
        for step in range(15, 45):
            recorder.backward(losses_of(model, x), step=step)
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0, 10, 20, 30, 40]
    with start(tmp_path, model, every=10, exist="resume") as recorder:
        for _ in range(12):
            recorder.backward(losses_of(model, x))
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0, 10, 20, 30, 40, 50]


def test_a_cell_that_runs_again(tmp_path: Path) -> None:
    model, x = build("mlp")
    for _ in range(2):
        with start(tmp_path, model, exist="new") as recorder:
            recorder.backward(losses_of(model, x))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["dump", "dump-2"]


def test_an_exception_leaves_a_dump_that_can_be_read_and_resumed(tmp_path: Path) -> None:
    model, x = build("mlp")
    with pytest.raises(KeyboardInterrupt), start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x))
        recorder.backward(losses_of(model, x))
        raise KeyboardInterrupt
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1]
    assert not dump.complete
    with start(tmp_path, model, exist="resume") as recorder:
        recorder.backward(losses_of(model, x))
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0, 1, 2]


def test_another_model_cannot_go_on_with_a_dump(tmp_path: Path) -> None:
    model, x = build("mlp")
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x))
    other = Heads(nn.Sequential(nn.Linear(6, 8), nn.Tanh()), 8)
    with pytest.raises(toppo.UsageError, match="other parameters"), start(tmp_path, other, exist="resume") as recorder:
        recorder.backward(losses_of(other, x), step=0)
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0]  # nothing was removed


def test_a_url(tmp_path: Path) -> None:
    model, x = build("mlp")
    url = "memory://recorder/dump"
    for exist in ("error", "resume", "new"):
        with record(url, model, tasks=TASKS, every=1, exist=exist) as recorder:
            recorder.backward(losses_of(model, x))
    assert toppo.open_dump(url).steps.tolist() == [0, 1]
    assert toppo.open_dump(f"{url}-2").steps.tolist() == [0]
    with pytest.raises(toppo.DumpError, match="already there"):
        record(url, model, tasks=TASKS)


def test_a_parameter_that_is_reached_later_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, x = build("mlp")
    with start(tmp_path, model) as recorder:
        recorder.backward(losses_of(model, x))
        z = model.encoder(x)
        for _ in range(2):
            recorder.backward([model.heads[0](model.encoder(x)).mean() * (i + 1) for i in range(3)])
    assert z is not None
    assert caplog.text.count("heads.0.weight is now reached by task 'middle'") == 1


def _two_backwards(model: Heads, x: Tensor, recorder: Recorder) -> None:
    losses = losses_of(model, x)
    recorder.backward(losses)
    recorder.backward(losses)


def _damaged_graph(model: Heads, x: Tensor, recorder: Recorder) -> None:
    losses = losses_of(model, x)
    with torch.no_grad():
        model.encoder[3].weight.add_(1)
    recorder.backward(losses)


def _separate(model: Heads, x: Tensor, recorder: Recorder) -> None:
    recorder.backward([head.weight.sum() for head in model.heads])


MISTAKES: dict[str, tuple[Callable[[Heads, Tensor, Recorder], object], str]] = {
    "no gradient": (lambda m, x, r: r.backward([torch.zeros(())] * 3), "no loss requires a gradient"),
    "no scalar": (lambda m, x, r: r.backward([y.mean(1) for y in m(x)]), r"'left' is of shape \(12,\)"),
    "a number": (lambda m, x, r: r.backward([1.0, 2.0, 3.0]), "'left' is float"),
    "too few": (lambda m, x, r: r.backward(losses_of(m, x)[:2]), "2 losses for 3 tasks"),
    "a matrix": (lambda m, x, r: r.backward(torch.stack(m(x))), r"shape \(3, 12, 2\); give \(3,\)"),
    "unknown task": (lambda m, x, r: r.backward({"lefd": losses_of(m, x)[0]}), "did you mean 'left'"),
    "a float step": (lambda m, x, r: r.backward(losses_of(m, x), step=1.5), "`step=1.5`"),
    "nothing shared": (_separate, "no parameter is reached by two tasks"),
    "twice": (_two_backwards, "once for each forward pass"),
    "in place": (_damaged_graph, "changed in place"),
    "weights": (lambda m, x, r: r.backward(losses_of(m, x), weights=[1.0]), r"`weights`"),
    "a step back": (
        lambda m, x, r: [r.backward(losses_of(m, x), step=s) for s in (5, 4)],
        "`step=4`: comes after step 5",
    ),
    "a number called loss": (lambda m, x, r: r.backward(losses_of(m, x), loss=1.0), "`loss`"),
    "samples of no task": (lambda m, x, r: r.backward(losses_of(m, x), samples=[3] * N), "`samples`"),
    "samples that are no integers": (lambda m, x, r: r.backward(losses_of(m, x), samples=[0.5] * N), "`samples`"),
    "closed": (lambda m, x, r: (r.close(), r.backward(losses_of(m, x))), "is closed"),
    "a number of another shape": (lambda m, x, r: r.backward(losses_of(m, x), success=[1.0, 2.0]), "success"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_loop_is_one_sentence(mistake: str, tmp_path: Path) -> None:
    model, x = build("mlp")
    act, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message) as caught, start(tmp_path, model) as recorder:
        act(model, x, recorder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (lambda m: {"a": m.encoder, "b": m.encoder[0]}, "separate modules"),
        (lambda m: {"a": m.heads}, "no parameter that two tasks reach"),
    ],
)
def test_wrong_sides_are_one_sentence(sides: Callable[[Heads], Any], message: str, tmp_path: Path) -> None:
    model, x = build("mlp")
    with pytest.raises(ValueError, match=message), start(tmp_path, model, sides=sides(model)) as recorder:
        recorder.backward(losses_of(model, x))


def test_a_path_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    with start(tmp_path, mlp()):
        pass  # an empty directory is free
    (tmp_path / "dump" / "other").touch()
    with pytest.raises(toppo.DumpError, match="exist='new'"):
        start(tmp_path, mlp())


def test_reentrant_checkpoints_are_refused(tmp_path: Path) -> None:
    model = Heads(Checkpointed(True), 8)
    x = vectors().requires_grad_()
    with pytest.raises(toppo.UsageError, match="use_reentrant=False"), start(tmp_path, model) as recorder:
        recorder.backward(all_samples(model(x)))


def test_what_the_caller_says_of_the_run_stays_apart_and_shows_seeds(tmp_path: Path) -> None:
    # Names that TOPPO's trainer has too, and one that no settings have.
    config = {"popart": "off", "layernorm": "critic", "capture": "mine", "config": "adam.yaml", "lr": 0.1}
    paths = []
    for seed in range(2):
        model, x = build("mlp")
        place = tmp_path / f"run{seed}"
        with start(place, model, config={**config, "seed": seed}) as recorder:
            for _ in range(3):
                recorder.backward(losses_of(model, x))
        paths.append(str(place / "dump"))
    attrs = toppo.open_dump(paths[1]).attrs
    assert attrs["config"] == {**config, "seed": 1} and attrs["capture"]["way"] in WAYS
    for draw in (toppo_diag.heatmaps, toppo_diag.health, toppo_diag.norms, toppo_diag.conflicts):
        product = draw(paths)
        assert not any("PopArt" in str(value) for row in product.headline for value in row.values())
    page = toppo_diag.report(paths).html
    assert "and other seeds" in page and "lr 0.1" in page

"""`toppo-diag weights`: the shares, their moving average, where they stand in time, and the figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import toppo_diag
from tests.diag import runs
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from tests.diag.test_plots import assert_legible, line, names
from toppo.dump import ENV_STEPS, DumpWriter, ScalarSpec, gram
from toppo_diag.analysis.weights import moving_average, spread_over_phase, stretches, weight_shares
from toppo_diag.plots.style import paper_style
from toppo_diag.plots.weights import weights_figure


def test_shares_sum_to_one_in_size():
    w = np.array([[1.0, 3.0], [-1.0, 3.0], [0.0, 0.0], [0.2, 0.8]])
    np.testing.assert_allclose(weight_shares(w), [[0.25, 0.75], [-0.25, 0.75], [0, 0], [0.2, 0.8]], rtol=1e-15)


@pytest.mark.parametrize("window", [1, 4, 10, 100])
def test_a_moving_average_is_that_of_the_last_few(window: int):
    values = np.random.default_rng(0).normal(size=(30, 3))
    expected = [values[max(0, n + 1 - window) : n + 1].mean(axis=0) for n in range(30)]
    # differences of running sums of 30 numbers of size 1
    np.testing.assert_allclose(moving_average(values, window), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("k", [4, 50])
def test_the_figure_draws_what_it_is_given(k: int):
    shares = np.random.default_rng(0).dirichlet(np.ones(k), 30)
    steps = np.linspace(0, 3e5, 30)
    with paper_style():
        figure = weights_figure(
            {"critic": (steps, shares), "actor": (steps, shares[::-1])},
            {"critic": "taskforce", "actor": "pcgrad"},
            names(k),
            10,
        )
        for i, task in enumerate(names(k)):
            np.testing.assert_array_equal(line(figure.axes[0], f"task {task}"), shares[:, i])
            np.testing.assert_array_equal(line(figure.axes[1], f"task {task}"), shares[::-1, i])
        np.testing.assert_array_equal(line(figure.axes[0], "even"), 1 / k)
        assert_legible(figure)


@pytest.fixture(scope="module")
def rewarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three snapshots of four minibatches with weights and rewards of a critic, none of the actor's."""
    path = tmp_path_factory.mktemp("runs") / "tf"
    scalars = {name: ScalarSpec(()) for name in ("critic_reward", "critic_reward_loss", "critic_reward_gradient")}
    writer = DumpWriter.create(
        path / "dump.zarr",
        tasks=list(runs.TASKS),
        sides={"actor": runs.LAYERS, "critic": runs.LAYERS},
        snapshots=3,
        minibatches=4,
        slabs=False,
        step=ENV_STEPS,
        minibatch_scalars={"critic_weights": ScalarSpec(("task",)), **scalars},
        attrs={"combiners": {"critic": "taskforce:every=2"}, "env_steps_per_collect": 1000},
    )
    for s in range(3):
        for m in range(4):
            grams = {side: gram(runs.gradients(side, s, m)) for side in ("actor", "critic")}
            weights = np.random.default_rng([s, m]).dirichlet(np.ones(4))
            rewards = {name: float(10 * s + m) for name in scalars}
            writer.record_minibatch(m, grams=grams, scalars={"critic_weights": weights, **rewards})
        writer.commit_snapshot(step=5000 * (s + 1), collect=s + 1)
    writer.close()
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_command(diag, rewarded):  # noqa: F811
    code, out, err = diag(
        "weights", rewarded, "--window", 3, "--name", "weights-tf", "--json", "--format", "svg", "--out", "o"
    )
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert [Path(f).name for f in answer["files"]] == ["weights-tf.svg", "weights-tf.csv", "weights-tf-rewards.csv"]
    assert any("no weights of the actor were recorded" in note for note in answer["notes"])
    w = np.stack([np.random.default_rng([s, m]).dirichlet(np.ones(4)) for s in range(3) for m in range(4)])
    rows = table(Path("o/weights-tf.csv"))
    np.testing.assert_allclose([float(r["weight"]) for r in rows], w.ravel(), rtol=1e-15)
    smooth = moving_average(w, 3, [0, 4, 8])  # snapshots lie apart: 5000 steps, collects of 1000
    np.testing.assert_allclose([float(r["moving_average"]) for r in rows], smooth.ravel(), rtol=1e-12)
    numbers = {n["task"]: n for n in answer["numbers"]}
    assert numbers["reach-v3"]["share_last"] == pytest.approx(smooth[-1, 0])
    assert numbers["reach-v3"]["share_first"] == pytest.approx(w[:3, 0].mean())
    rewards = table(Path("o/weights-tf-rewards.csv"))
    assert [float(r["reward"]) for r in rewards] == [10.0 * s + m for s in range(3) for m in range(4)]
    code, _, err = diag("weights", rewarded, rewarded)
    assert code == 2
    assert "is given twice" in err
    code, _, err = diag("weights", rewarded, "--window", 0)
    assert code == 2


def test_an_average_does_not_bridge_snapshots_that_lie_apart(rewarded):
    w = np.stack([np.random.default_rng([s, m]).dirichlet(np.ones(4)) for s in range(3) for m in range(4)])
    product = toppo_diag.weights(rewarded)
    numbers = product.numbers.set_index("task").loc["push-v3"]
    assert numbers["share_first"] == pytest.approx(w[:4, 1].mean())
    assert numbers["share_last"] == pytest.approx(w[8:, 1].mean())
    assert numbers["share"] == pytest.approx(np.median(w[:, 1]))
    assert (numbers["share_low"], numbers["share_high"]) == pytest.approx((w[:, 1].min(), w[:, 1].max()))
    assert not [note for note in product.notes if "are the same" in note]
    one = toppo_diag.weights(rewarded, snapshot=0)
    assert [note for note in one.notes if "first and the last share are the same" in note]


def test_successive_collects_are_one_stretch():
    steps, snapshot = np.array([1, 1, 2, 2, 9, 9]) * 1000, np.array([0, 0, 1, 1, 2, 2])
    assert stretches(steps, snapshot, 1000) == [0, 4]
    assert stretches(steps, snapshot, None) == [0, 2, 4]


def test_weights_that_were_not_recorded_are_not_drawn(bare_run, run):
    with pytest.raises(toppo_diag.DiagnosticError, match="record them under actor_weights and critic_weights"):
        toppo_diag.weights(bare_run)
    product = toppo_diag.trap(bare_run, starved_snapshots=1, starved_share=1.0)
    assert set(product.numbers["flag"]) == {""}
    assert "assumed" in toppo_diag.trap(bare_run).figure().axes[0].get_title()
    assert "assumed" not in toppo_diag.trap(run).figure().axes[0].get_title()


def test_trap_states_its_rule_and_that_lines_coincide(run, ln_run):
    title = toppo_diag.trap(run, starved_snapshots=4).figure().axes[0].get_title()
    assert title.splitlines() == [
        "starved = in the grey band in the last 4 snapshots, beyond noise:",
        "no task",
        "all lines coincide (FairGrad, \u03b1 = 1: Theorem 1)",
    ]
    assert "coincide" not in toppo_diag.trap(ln_run).figure().axes[0].get_title()


@pytest.mark.parametrize(
    ("name", "units", "column", "label"),
    [
        ("episode_return", "points", "episode_return", "episode return (points)"),
        ("loss", "nats", "loss", "loss (nats)"),
        ("loss_trunk", "loss", "loss", "loss"),
        ("accuracy", "1", "accuracy", "accuracy"),
    ],
)
def test_trap_shows_what_was_recorded_on_its_own_scale(tmp_path, name, units, column, label):
    values = np.array([200.0, 3000.0, 0.5])
    scalars = {name: ScalarSpec(("task",), units=units)}
    with DumpWriter.create(tmp_path / "a.zarr", tasks=list("abc"), sides={"trunk": 5}, minibatch_scalars=scalars) as w:
        for step in range(4):
            slab = np.random.default_rng(step).standard_normal((3, 5)).astype(np.float32)
            w.record(step=step, trunk=slab, **{name: values / 3000 if name == "accuracy" else values})
    product = toppo_diag.trap(str(tmp_path / "a.zarr"))
    assert list(product.tables["main"].columns)[-1] == column
    beside = product.figure().axes[1]
    assert beside.get_ylabel() == label
    assert beside.get_yscale() == ("log" if column == "loss" else "linear")
    assert (beside.get_ylim()[1] < 1.1) == (column == "accuracy")


def test_the_minibatches_of_a_snapshot_stand_side_by_side():
    steps, minibatch = np.array([100, 100, 200, 200]), np.array([0, 1, 0, 1])
    of_trainer = spread_over_phase(steps, minibatch, 2, np.array([100, 200]), 20)
    np.testing.assert_array_equal(of_trainer, [90, 100, 190, 200])
    of_others = spread_over_phase(steps, minibatch, 2, np.array([100, 200]), None)
    np.testing.assert_array_equal(of_others, [50, 100, 150, 200])
    np.testing.assert_array_equal(spread_over_phase(steps[:2], minibatch[:2], 2, np.array([100]), None), [100, 100])

"""Runs of strangers: a supervised run speaks of its own steps and sides, gaps are gaps, and a dead end is seen."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

import toppo_diag
from tests.diag import supervised
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from tests.diag.test_plots import assert_legible, line
from toppo.dump import DumpWriter
from toppo_diag.commands import COMMANDS, OF_DUMPS
from toppo_diag.output import table_lines
from toppo_diag.reading.conditions import PER_TASK, SUCCESS
from toppo_diag.screen import screen

FOREIGN = re.compile(r"critic|actor|environment|env_steps|collect|popart|vanilla|\bFG\b|raw\b", re.IGNORECASE)
"""Words of TOPPO's trainer, none of which a supervised run has."""
QUICK: dict[str, dict[str, Any]] = {
    "replay": {"combiners": "mean,fairgrad"},
    "invariance": {"combiners": "mean,fairgrad", "tol": 1e-6},
}


@pytest.fixture(scope="module", params=[3, 10, 50])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("supervised")
    return supervised.record(folder / "mine.zarr", request.param, weights=True, snapshots=6)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> str:
    return supervised.record(tmp_path_factory.mktemp("sparse") / "sparse.zarr", absent=True, weights=True)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> str:
    return supervised.record(tmp_path_factory.mktemp("diverged") / "diverged.zarr", diverges_at=8, weights=True)


@pytest.mark.parametrize("command", [*COMMANDS])
def test_no_word_of_the_trainer(run: str, command: str):
    product = COMMANDS[command](run, **QUICK.get(command, {}))
    figure = product.figure()
    said = [*product.notes, *product.failures, *table_lines(product.headline), product.name]
    said += [column for rows in product.rows.values() for row in rows[:1] for column in row]
    if command != "invariance":  # (a) to (c) are of synthetic gradients, in the words of the paper
        said += [text.get_text() for text in figure.findobj(Text)]
        assert_legible(figure)
    assert [text for text in said if FOREIGN.search(text)] == []
    if command in ("norms", "conflicts", "trap", "weights", "contributions"):
        assert {ax.get_xlabel() for ax in figure.findobj(Axes)} >= {"steps"}
        assert "step" in product.tables["main"]


def test_no_word_of_the_trainer_on_the_screen(diag, run, tmp_path):  # noqa: F811
    code, out, _ = diag("watch", run, "--once")
    assert code == 0
    facts = "\n".join(screen(toppo_diag.info(run)))
    assert not FOREIGN.search(out.replace(run, "") + facts.replace(run, ""))
    for command in (
        "trap",
        "heatmaps",
        "replay",
        "norms",
        "conflicts",
        "weights",
        "health",
        "info",
        "watch",
        "compare",
    ):
        _, helped, _ = diag(command, "--help")
        assert not re.search(r"critic|actor|environment steps|popart|\bcollect\b", helped, re.IGNORECASE), command


def test_the_first_side_is_shown_and_said(run: str):
    for command in ("heatmaps", "health", "trap", "replay", "contributions"):
        product = COMMANDS[command](run, **QUICK.get(command, {}))
        assert f"-encoder-{Path(run).stem}" in product.name
        assert f"{run}: shows the side encoder; choose heads with `side`" in product.notes
    assert not [note for note in toppo_diag.trap(run, side="heads").notes if "shows the side" in note]


def test_a_bias_of_rounding_noise_is_no_conflict(run: str):
    layers = toppo_diag.conflicts(run, side="encoder").tables["layers"].set_index("layer")
    assert layers.loc["encoder.bias_before_norm", "conflict"] == 0
    assert layers.loc["encoder.bias_before_norm", "norm_share"] < 1e-12
    assert layers["norm_share"].sum() == pytest.approx(1)
    assert any("no two tasks meet" in note for note in toppo_diag.conflicts(run, side="heads").notes)


def test_every_layer_option_works_without_slabs(run: str):
    whole = toppo_diag.norms(run, side="encoder").tables["main"]["norm"] ** 2
    layers = [
        toppo_diag.norms(run, side="encoder", layer=name).tables["main"]["norm"] ** 2
        for name in ("encoder.layers", "encoder.bias_before_norm")
    ]
    np.testing.assert_allclose(sum(layers), whole, rtol=1e-6)


@pytest.mark.parametrize("command", [*COMMANDS])
def test_sparse_labels_and_a_run_that_diverges_are_drawn_without_a_warning(sparse: str, diverged: str, command: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, cause in ((sparse, "absent: target 1, target 2"), (diverged, "not finite: the encoder gradient of")):
            product = COMMANDS[command](path, **QUICK.get(command, {}))
            product.figure().canvas.draw()
            assert sum(cause in note for note in product.notes) == 1


def test_an_absent_task_is_a_gap_and_not_dead(sparse: str):
    tasks = supervised.names(4)
    figure = toppo_diag.norms(sparse, side="encoder").figure()
    (panel,) = figure.axes
    drawn = {task: np.isfinite(line(panel, f"task {task}")) for task in tasks}
    assert drawn[tasks[0]].all()
    np.testing.assert_array_equal(drawn["target 1"], np.arange(12) % 2 == 0)
    np.testing.assert_array_equal(drawn["target 2"], np.arange(12) < 6)
    assert not [a for a in panel.lines if str(a.get_gid()).startswith("dead")]
    dotted = next(a for a in panel.lines if a.get_gid() == "task target 1")
    assert dotted.get_marker() == "o"  # its points stand alone
    found = toppo_diag.trap(sparse, starved_share=1.0, starved_snapshots=1)
    numbers = found.numbers.set_index("task")
    assert numbers.loc["target 2", "starved_for"] <= 6  # no snapshot without it counts
    shares = found.tables["main"].pivot(index="step", columns="task", values="share")
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)  # of those that were there
    heat = toppo_diag.heatmaps(sparse, stage="late").figure()
    assert len([a for a in heat.findobj() if a.get_gid() == "gap"]) == 4  # the rows and columns of two tasks


def test_the_end_of_a_run_that_diverged_is_in_the_picture(diverged: str):
    for product in (toppo_diag.norms(diverged), toppo_diag.trap(diverged), toppo_diag.contributions(diverged)):
        panel = product.figure().axes[0]
        (lost,) = (a for a in panel.patches if a.get_gid() == "lost")
        assert (lost.get_x(), lost.get_x() + lost.get_width()) == (70, 110)
        assert [t.get_text() for t in panel.texts if t.get_gid() == "lost note"] == ["no finite gradient"]
        assert panel.get_xlim()[1] > 110
    heat = toppo_diag.heatmaps(diverged).figure()
    assert [t.get_text() for ax in heat.axes for t in ax.texts if t.get_gid() == "lost note"] == ["no finite\ngradient"]


def test_info_says_what_each_command_can_do(tmp_path):
    """What `info` calls working draws something, and what it calls lacking is in the command's own notes or errors."""
    bare = str(tmp_path / "bare.zarr")
    with DumpWriter.create(bare, tasks=["a", "b"], sides={"trunk": 4, "neck": 4}, slabs=False) as dump:
        for step in range(2):
            slab = np.random.default_rng(step).standard_normal((2, 4)).astype(np.float32)
            dump.record(step=step, trunk=slab, neck=slab, neck_weights=[0.5, 0.5])
    full = supervised.record(tmp_path / "full.zarr", weights=True, snapshots=4)
    empty = str(tmp_path / "empty.zarr")
    DumpWriter.create(empty, tasks=["a", "b"], sides={"trunk": 4}).close()
    for path in (bare, full, empty):
        feeds = toppo_diag.info(path)["commands"]
        assert feeds.keys() == {*OF_DUMPS, "report"}
        for command, make in OF_DUMPS.items():
            try:
                make(path, **QUICK.get(command, {}))
                works = True
            except ValueError:
                works = False
            assert works == feeds[command]["works"], (path, command)
    assert not any(feed["missing"] for feed in toppo_diag.info(full)["commands"].values())
    missing = {command: "; ".join(feed["missing"]) for command, feed in toppo_diag.info(bare)["commands"].items()}
    assert "trunk_weights" in missing["weights"]
    assert "neck_weights" not in missing["weights"]
    assert "accuracy" in missing["trap"]
    assert "layer_grams" in missing["conflicts"]
    assert "three snapshots" in missing["conflicts"]
    assert missing["norms"] == ""
    lines = "\n".join(screen(toppo_diag.info(bare)))
    assert "feeds          heatmaps, norms" in lines
    assert "lacks" in lines


def test_the_page_of_names_has_every_name_that_is_looked_for():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "names.md").read_text()
    for name in (*SUCCESS, *PER_TASK, "loss", "loss_<side>", "<side>_weights", "<side>_order", "popart_sigma"):
        assert f"| `{name}` |" in page


def test_a_run_whose_step_is_the_sum_of_the_losses_needs_no_weights(tmp_path):
    """`toppo.record` says how it captured the gradients, and records weights where anything else decides the step."""
    path = str(tmp_path / "summed.zarr")
    attrs = {"capture": {"way": "walks"}}
    with DumpWriter.create(path, tasks=["a", "b"], sides={"shared": 4}, attrs=attrs) as dump:
        for step in range(4):
            dump.record(step=step, shared=np.random.default_rng(step).standard_normal((2, 4)), loss=[1.0, 2.0])
    numbers = toppo_diag.replay(path, combiners="mean,sum").numbers.set_index("combiner")
    assert numbers.loc["sum", "distance_to_training"] == 0
    assert numbers.loc["mean", "distance_to_training"] == pytest.approx(0.5)
    assert numbers.loc["mean", "cosine_to_training"] == pytest.approx(1)
    title = toppo_diag.trap(path).figure().axes[0].get_title()
    assert "the step is the sum of the losses" in title
    assert "assumed" not in title
    with pytest.raises(toppo_diag.DiagnosticError, match="the step is the sum of the losses"):
        toppo_diag.weights(path)

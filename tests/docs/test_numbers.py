"""The numbers that README.md, docs/ and figures/README.md state of the shipped archives are those of the archives."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

import toppo_diag
from tests.benchmarks import taskforce_pages, taskforce_runs, value_clip
from tests.docs.pages import ROOT
from toppo.dump import Dump, open_dump
from toppo_diag.reading.runs import read_runs

DATA = ROOT / "figures" / "data"


def text(page: str) -> str:
    """A page without its line breaks."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@cache
def opened(run: str) -> Dump:
    """A shipped archive, or the dump of a run that goes on: "under way/mean" is that of mean.tar."""
    place, _, name = run.rpartition("/")
    if not place:
        return open_dump(DATA / f"{run}.h5")
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    with tarfile.open(DATA / f"{name}.tar") as tar:
        tar.extractall(folder, filter="data")
    return open_dump(Path(folder) / "dumps" / name)


@cache
def spreads(run: str, side: str = "critic", raw: bool = False) -> np.ndarray:
    """Longest gradient over the shortest of each dumped minibatch, (snapshot, minibatch), in plain numpy."""
    dump = opened(run)
    length = np.sqrt(np.diagonal(dump.values(f"{side}_gram"), axis1=2, axis2=3))
    if raw:
        length = length * dump.values("popart_sigma")[:, None] ** 2
    ratio: np.ndarray = length.max(axis=2) / length.min(axis=2)
    return ratio


@cache
def cosines(run: str, side: str = "critic") -> np.ndarray:
    """Mean |cos| over the pairs of tasks of each dumped minibatch, (snapshot, minibatch), in plain numpy."""
    gram = opened(run).values(f"{side}_gram")
    length = np.sqrt(np.diagonal(gram, axis1=2, axis2=3))
    cosine = np.abs(gram / (length[..., :, None] * length[..., None, :]))
    mean: np.ndarray = cosine[..., ~np.eye(gram.shape[-1], dtype=bool)].mean(axis=-1)
    return mean


def x(ratio: float, sign: str = "x") -> str:
    return f"{ratio:,.0f}{sign}" if ratio >= 100 else f"{ratio:.3g}{sign}"


def ranged(values: np.ndarray, sign: str = "x") -> str:
    return f"({x(values.min(), sign)} to {x(values.max(), sign)})"


def typically(values: np.ndarray, sign: str = "x") -> str:
    return f"{x(float(np.median(values)), sign)} {ranged(values, sign)}"


def decimals(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


EARLY, MID, LATE = range(3)


def test_the_readme_states_the_numbers_of_its_picture():
    page = toppo_diag.report(DATA / "mean-ln.h5")
    trouble = {row["check"]: row for row in page.headline if row["verdict"] == "trouble"}
    assert set(trouble) == {"top_1", "spread"} and {row["side"] for row in trouble.values()} == {"critic"}
    readme = text("README.md")
    assert trouble["top_1"]["tasks"] == ["pick-place-v3"]
    assert f"pick-place alone makes {100 * trouble['top_1']['number']:.0f}% of the critic's step" in readme
    assert f"typically {trouble['spread']['number']:.0f} times the shortest" in readme
    opposed = {row["combiner"]: row["opposed"] for row in page.options if row["side"] == "critic" and row["popart"]}
    assert (opposed["mean"], opposed["fairgrad"]) == (3, 0)


def test_the_tutorial_states_the_medians_and_ranges_of_its_picture():
    dump = open_dump(DATA / "toppo.h5")
    length = np.sqrt(np.diagonal(dump.values("critic_gram")[0], axis1=1, axis2=2))
    without_popart = length * dump.values("popart_sigma")[0] ** 2
    raw, trained = spreads("toppo", raw=True)[0], spreads("toppo")[0]
    page = text("docs/tutorials/read-a-heatmap.md")
    assert f"spreads from {raw.min():,.0f} to {raw.max():,.0f} without PopArt" in page
    assert f"The medians are {np.median(raw):,.0f} and {np.median(trained):,.0f}." in page
    quietest = {dump.tasks[i] for i in without_popart.argmin(axis=1)}
    assert quietest == {"pick-place-v3"}
    shown = length[int(np.argsort(cosines("toppo")[0])[2])]
    assert dump.tasks[int(shown.argmax())] == "peg-insert-side-v3"
    assert f"peg-insert-side alone has {100 * shown.max() / shown.sum():.0f} % of the summed length" in page


def test_figures_readme_states_medians_of_stages():
    page = text("figures/README.md")
    none, ln = spreads("mean", raw=True), spreads("mean-ln", raw=True)
    popart, ln_popart = spreads("mean"), spreads("mean-ln")
    abs_cos, abs_cos_ln = cosines("mean"), cosines("mean-ln")

    def m(values: np.ndarray) -> str:
        return x(float(np.median(values)))

    early = [abs_cos[EARLY], abs_cos_ln[EARLY]]
    assert " and ".join(f"{np.median(v):.2f} ({v.min():.2f} to {v.max():.2f})" for v in early) in page
    assert max(early[0]) < 0.34  # "the paper's 0.34 lies above all five minibatches"
    assert f"{m(none[EARLY])} without LN {ranged(none[EARLY])}, {m(ln[EARLY])} with {ranged(ln[EARLY])}" in page
    assert f"{m(none[MID])} mid {ranged(none[MID])}, then {m(none[LATE])} {ranged(none[LATE])}" in page
    for stage, name in ((MID, "mid"), (LATE, "late")):
        assert f"from {np.median(abs_cos[stage]):.2f} to {np.median(abs_cos_ln[stage]):.2f} {name}" in page
    for stage in (EARLY, MID):
        from_to = f"({m(none[stage])} to {m(popart[stage])}, with LN {m(ln[stage])} to {m(ln_popart[stage])})"
        assert from_to in page
    assert f"it widens: from {m(none[LATE])} to {m(popart[LATE])}" in page
    assert f"with LN from {m(ln[LATE])} to {m(ln_popart[LATE])}**" in page
    assert ln[LATE].max() < ln_popart[LATE].min() and none[LATE].max() > popart[LATE].min()  # "the ranges overlap"
    actor, actor_cos = spreads("mean-ln", "actor"), cosines("mean-ln", "actor")
    per_stage = ", ".join(m(v) for v in actor)
    assert f"{per_stage}; abs. cosine {', '.join(f'{np.median(v):.2f}' for v in actor_cos)}" in page


def test_figures_readme_states_what_the_runs_under_way_have_reached():
    page = text("figures/README.md")
    both = ("under way/mean", "under way/mean-ln")
    for run in both:
        logged = read_runs([str(Path(opened(run).path).parent)])[0]
        assert f"`{logged.name}` has {opened(run).n_stream * 100_000:,} steps" in page
        assert f"{100 * logged.success[-1].mean():.1f} % in its evaluation at {logged.env_steps[-1]:,}" in page
    at = [opened(run).steps.tolist().index(4_500_000) for run in both]

    def row(of: list[np.ndarray], said: Callable[[np.ndarray], str]) -> str:
        return " | ".join(said(values[n]) for values, n in zip(of, at, strict=True)) + " |"

    def spread(values: np.ndarray) -> str:
        return f"{x(float(np.median(values)))} {ranged(values)}"

    assert f"critic, mean abs. cosine | | {row([cosines(run) for run in both], decimals)}" in page
    raw = [spreads(run, raw=True) for run in both]
    assert f"critic, spread before PopArt | about 200x, with LN 525x | {row(raw, spread)}" in page
    assert f"critic, spread under PopArt | with LN 1,428x | {row([spreads(run) for run in both], spread)}" in page
    typical, before = ([np.median(spreads(run, raw=r), axis=1) for run in both] for r in (False, True))
    steps = opened(both[1]).steps
    widened = [steps[t > b].tolist() for t, b in zip(typical, before, strict=True)]
    assert widened == [
        list(range(first, last + 1, 500_000)) for first, last in ((2_000_000, 4_500_000), (2_500_000, 4_000_000))
    ]
    most = int(typical[1].argmax())
    said = f"widest at {steps[most] / 1e6:.1f} million, where {x(before[1][most])} becomes {x(typical[1][most])}."
    assert said in page
    actor = row([spreads(run, "actor") for run in both], spread)
    assert f"actor, spread | 2.7x | {actor}" in page
    assert f"actor, mean abs. cosine | | {row([cosines(run, 'actor') for run in both], decimals)}" in page


def test_figures_readme_states_medians_of_runs():
    page = text("figures/README.md")
    plain, raw = (
        toppo_diag.norms(str(DATA / "mean-ln.h5"), raw=raw).numbers.set_index("side") for raw in (False, True)
    )

    def of(numbers, side: str) -> str:
        row = numbers.loc[side]
        return ranged(np.array([row["spread_low"], row["spread_high"]]))

    assert f"critic {x(plain.loc['critic', 'spread'])} under PopArt {of(plain, 'critic')}" in page
    assert f"and {x(raw.loc['critic', 'spread'])} raw {of(raw, 'critic')}" in page
    assert f"actor {x(plain.loc['actor', 'spread'])} {of(plain, 'actor')}, of 240 minibatches" in page
    assert set(plain["minibatches"]) == {240}
    health = toppo_diag.health([str(DATA / "fg.h5"), str(DATA / "mean-ln.h5")]).numbers.set_index("condition")
    cosine, mass = health["mean_abs_cosine"], health["top_1_mass"]
    assert (
        f"{cosine['+PopArt']:.2f} to {cosine['+PopArt+LN']:.2f}; {mass['+PopArt']:.2f} to {mass['+PopArt+LN']:.2f}; "
        f"{mass['+PopArt+LN+FG']:.2f} | agree"
    ) in page
    shares = toppo_diag.contributions(str(DATA / "fg.h5")).numbers.set_index("condition")
    said = [
        f"{x(row['spread'])} {ranged(np.array([row['spread_low'], row['spread_high']]))}"
        for _, row in shares.loc[["raw, mean", "+PopArt, mean", "+PopArt, FG"]].iterrows()
    ]
    assert f"{said[0]}, {said[1]}, {said[2]} on both" in page


def test_the_results_page_states_medians():
    page = text("docs/results.md")
    none = spreads("mean", raw=True)[EARLY]
    assert f"without LayerNorm | {np.median(cosines('mean')[EARLY]):.2f} | 0.34 |" in page
    assert f"the same with LayerNorm | {np.median(cosines('mean-ln')[EARLY]):.2f} | 0.20 |" in page
    assert f"before PopArt | {np.median(none):,.0f} | 9,864 |" in page
    assert f"the five ratios lie between {none.min():,.0f} and {none.max():,.0f}" in page
    early = cosines("mean")[EARLY]
    assert f"between {early.min():.2f} and {early.max():.2f}" in page
    assert int(early.argmax()) == int(cosines("mean-ln")[EARLY].argmax()) == 0  # the first is not typical


def test_the_results_page_states_the_numbers_of_v1():
    page = text("docs/results.md")
    both = ["toppo-v1", "toppo"]
    sigma = [open_dump(DATA / f"{run}.h5").values("popart_sigma") for run in both]
    widths = [s[0].max() / s[0].min() for s in sigma]
    assert f"of the returns, at 0.5M steps | {widths[0]:,.0f} | {widths[1]:,.0f} |" in page
    factors = []
    for at, raw_text, popart_text in (
        (0, "critic gradient at 0.5M steps, before PopArt", "the same under PopArt"),
        (1, "the same at 1M steps, before PopArt", "the same under PopArt"),
    ):
        raw, popart = ([spreads(run, raw=r)[at] for run in both] for r in (True, False))
        v1 = [value / 1e6 for value in (np.median(raw[0]), raw[0].min(), raw[0].max())]
        of_v1 = "{:.3g} million ({:.3g} to {:.3g} million)".format(*v1)
        assert f"{raw_text} | {of_v1} | {typically(raw[1], '')} |" in page
        assert f"{popart_text} | {typically(popart[0], '')} | {typically(popart[1], '')} |" in page
        factors += [[float(np.median(a) / np.median(b)) for a, b in zip(raw, popart, strict=True)]]
    (v1_early, v2_early), (v1_later, v2_later) = factors
    assert f"a factor of {round(v1_early, -3):,.0f} to {round(v1_later, -3):,.0f} out of the spread" in page
    assert 6 <= v2_early < 7 and 0.9 < v2_later < 1.1
    v1, v2 = (read_runs([str(DATA / f"{run}.h5")])[0] for run in both)
    assert v1.env_steps.tolist() == [0, 400_000, 800_000, 1_000_000]
    for n, steps in enumerate(v1.env_steps[1:], start=1):
        beside = f"{v2.success[n].mean():.3f}" if v2.env_steps[n] == steps else ""
        row = f"| evaluation at {steps:,} steps | {v1.success[n].mean():.3f} | {beside}"
        assert f"{row.strip()} |" in page
    last = dict(zip(v1.tasks, v1.success[-1], strict=True))
    assert [sum(v >= 0.99 for v in last.values()), last["push-v3"], sum(v == 0 for v in last.values())] == [4, 0.04, 5]


def test_the_results_page_states_what_the_value_clip_does():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    made = value_clip.tables(DATA / "vanilla.h5", DATA / "vanilla-no-clip.h5")
    assert all(part in page for part in made.split("\n\n"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.split("\n\n")[0].splitlines()[2:]]
    assert sum(int(row[1].rstrip(" %")) >= 50 for row in rows) == 7
    assert [row[0] for row in rows if float(row[4]) < 1] == ["pick-place", "button-press-topdown"]
    assert max(float(row[4]) for row in rows) == 14


def test_the_page_on_taskforce_has_the_tables_of_its_study():
    page = (ROOT / "figures/taskforce/README.md").read_text(encoding="utf-8")
    study = taskforce_runs.load()
    made = taskforce_pages.tables(study)
    assert made == (ROOT / "figures/taskforce/study.md").read_text(encoding="utf-8")
    bodies = [part.split("\n\n", 1)[1].strip() for part in made.split("## ")[1:]]
    assert len(bodies) == 4 and all(body in page for body in bodies)
    alone, both = (
        study.delta(spec) for spec in ("taskforce:r_g=norm,buffer=100,step=normalised", "taskforce:r_g=norm")
    )
    assert f"{alone.mean():+.1f} ± {alone.std(ddof=1):.1f} %" in page and both.mean() < alone.min()


def test_the_instrument_pages_state_medians():
    sign = "\N{MULTIPLICATION SIGN}"

    def m(values: np.ndarray) -> str:
        return x(float(np.median(values)), sign)

    heatmaps, norms = text("docs/instruments/heatmaps.md"), text("docs/instruments/norms.md")
    none, ln = spreads("mean", raw=True), spreads("mean-ln", raw=True)
    popart, ln_popart = spreads("mean"), spreads("mean-ln")
    assert f"Top left: {m(none[EARLY])}." in heatmaps
    assert f"narrows the spread early ({m(none[EARLY])} to {m(popart[EARLY])})" in heatmaps
    assert f"from {m(none[LATE])} to {m(popart[LATE])} without LayerNorm" in heatmaps
    assert f"from {m(ln[LATE])} to {m(ln_popart[LATE])} with it" in heatmaps
    late = [float(np.median(cosines(run)[LATE])) for run in ("mean", "mean-ln")]
    assert f"mean $|\\cos|$ is {late[0]:.2f}; with LayerNorm, at the same step, it is {late[1]:.2f}" in heatmaps
    assert all(4 <= np.median(v) <= 6 for v in spreads("mean-ln", "actor"))
    for raw in (False, True):
        critic = toppo_diag.norms(str(DATA / "mean-ln.h5"), raw=raw).numbers.set_index("side").loc["critic"]
        first, last = (x(critic[f"spread_{end}_step"], sign) for end in ("first", "last"))
        if raw:
            assert f"{x(critic['spread'], sign)} in the median, and falls from {first}" in norms
            assert f"to {last} in the last" in norms
        else:
            assert f"{x(critic['spread'], sign)} in the median over {critic['minibatches']:.0f} minibatches" in norms
            assert f"{first} in the median of the first collect and {last} in that of the last" in norms

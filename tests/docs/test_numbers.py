"""The numbers that README.md, docs/ and figures/README.md state of the shipped archives are those of the archives."""

from __future__ import annotations

from functools import cache

import numpy as np

import toppo_diag
from tests.benchmarks import taskforce_pages, taskforce_runs, value_clip
from tests.docs.pages import ROOT
from toppo.dump import Dump, open_dump
from toppo_diag.analysis.stages import PAPER_STAGES
from toppo_diag.reading.runs import read_runs

DATA = ROOT / "figures" / "data"


def text(page: str) -> str:
    """A page without its line breaks."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@cache
def opened(run: str) -> Dump:
    """A shipped archive."""
    return open_dump(DATA / f"{run}.h5")


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


def success_of(run: str) -> dict[int, float]:
    """Mean success of each evaluation of a shipped archive, by its step."""
    log = read_runs([str(DATA / f"{run}.h5")])[0]
    return dict(zip(log.env_steps.tolist(), log.success.mean(axis=1).tolist(), strict=True))


def x(ratio: float, sign: str = "x") -> str:
    return f"{ratio:,.0f}{sign}" if ratio >= 100 else f"{ratio:.3g}{sign}"


def ranged(values: np.ndarray, sign: str = "x") -> str:
    return f"({x(values.min(), sign)} to {x(values.max(), sign)})"


def typically(values: np.ndarray, sign: str = "x") -> str:
    return f"{x(float(np.median(values)), sign)} {ranged(values, sign)}"


def plainly(values: np.ndarray) -> str:
    return typically(values, "")


def decimals(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


EARLY, MID, LATE = 0, 8, 14
"""Indices of the paper's stages among the snapshots of the long runs."""


def test_the_long_runs_have_the_stages_of_the_paper():
    for run in ("mean", "mean-ln", "fg", "fg-ln"):
        assert opened(run).steps[[EARLY, MID, LATE]].tolist() == list(PAPER_STAGES.values())


def test_the_readme_states_the_numbers_of_its_picture():
    page = toppo_diag.report(DATA / "mean-ln-first.h5")
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

    assert f"{decimals(abs_cos[EARLY])} and {decimals(abs_cos_ln[EARLY])}" in page
    fg, fg_ln = spreads("fg", raw=True), spreads("fg-ln", raw=True)
    assert f"; with FairGrad {m(fg[MID])}, then {m(fg[LATE])};" in page
    assert f"with LN and FairGrad {m(fg_ln[MID])} to {m(spreads('fg-ln')[MID])} |" in page
    with_fairgrad = " and ".join(f"{np.median(cosines(run)[EARLY]):.2f}" for run in ("fg", "fg-ln"))
    assert f"In the pair with FairGrad the cosines are {with_fairgrad} |" in page
    assert f"{m(none[EARLY])} without LN {ranged(none[EARLY])}, {m(ln[EARLY])} with {ranged(ln[EARLY])}" in page
    assert f"{m(none[MID])} mid {ranged(none[MID])}, then {m(none[LATE])} {ranged(none[LATE])}" in page
    for stage, name in ((MID, "mid"), (LATE, "late")):
        assert f"from {np.median(abs_cos[stage]):.2f} to {np.median(abs_cos_ln[stage]):.2f} {name}" in page
    said = {
        stage: f"{m(none[stage])} to {m(popart[stage])}, with LN {m(ln[stage])} to {m(ln_popart[stage])}"
        for stage in (EARLY, MID, LATE)
    }
    assert f"early {said[EARLY]}; late {said[LATE]}" in page and f"| {said[MID]}, with LN and" in page
    overlap = [before[n].min() < after[n].max() for before, after in ((none, popart), (ln, ln_popart)) for n in (0, 14)]
    assert overlap == [False, True, True, True]  # "the ranges overlap, except early without LN"
    assert none[MID].max() > popart[MID].min() and none[MID].max() > none[LATE].min()  # "ranges that overlap"
    course = np.median(none, axis=1)
    least, steps = int(course.argmin()), opened("mean").steps / 1e6
    assert (
        f"to {x(course[least])} at {steps[least]:g}M steps" in page
        and f"at {steps[-1]:g}M it is {x(course[-1])}" in page
    )
    actor, actor_cos = spreads("mean-ln", "actor"), cosines("mean-ln", "actor")
    stages = (EARLY, MID, LATE)
    per_stage = ", ".join(m(actor[n]) for n in stages)
    assert f"{per_stage}; abs. cosine {', '.join(f'{np.median(actor_cos[n]):.2f}' for n in stages)} |" in page
    assert f"over all snapshots the spread is up to {x(np.median(actor, axis=1).max())} |" in page


def test_figures_readme_states_when_popart_widens_the_spread():
    page = text("figures/README.md")
    steps = opened("mean").steps / 1e6
    typical, before = (
        {run: np.median(spreads(run, raw=raw), axis=1) for run in ("mean", "mean-ln")} for raw in (False, True)
    )
    wider = {run: steps[typical[run] > before[run]].tolist() for run in typical}
    assert wider["mean-ln"][:4] == [2.5, 3.0, 3.5, 4.0] and wider["mean"] == [2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
    later = [f"{step:g}" for step in wider["mean-ln"][4:]]
    assert f"From 4.5 million on it narrows it, except at {' and '.join(later)} million" in page
    assert "From 2.5 to 4 million it widens the spread" in page and "widens the spread from 2 to 4.5 million" in page
    for run in ("fg", "fg-ln"):
        typical[run], before[run] = (np.median(spreads(run, raw=raw), axis=1) for raw in (False, True))
        assert opened(run).steps.tolist() == opened("mean").steps.tolist()
    wider = {run: steps[typical[run] > before[run]].tolist() for run in typical}
    assert wider["fg"] == [2.0, 2.5, 3.0, 3.5, 4.0]
    assert wider["fg-ln"][:7] == [1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
    later = " and ".join(f"{step:g}" for step in wider["fg-ln"][7:])
    assert f"from 1.5 to 4.5 million steps, and at {later} million. With FairGrad alone" in page
    assert not any(typical[run][stage] > before[run][stage] for run in typical for stage in (EARLY, LATE))
    most = int(typical["mean-ln"].argmax())
    widest = f"{steps[most]:g}M: {x(before['mean-ln'][most])} becomes {x(typical['mean-ln'][most])}"
    assert f"widest at {widest}" in page


def test_figures_readme_compares_two_runs_of_one_configuration():
    page = text("figures/README.md")
    runs = ("mean-first", "mean", "mean-ln-first", "mean-ln")
    for n, steps in enumerate((500_000, 1_000_000, 1_500_000)):
        assert all(opened(run).steps[n] == steps for run in runs)
        at = f"{steps / 1e6:.1f}M"
        for name, said in (
            ("critic, mean abs. cosine", [decimals(cosines(run)[n]) for run in runs]),
            ("critic, spread before PopArt", [typically(spreads(run, raw=True)[n]) for run in runs]),
            ("critic, spread under PopArt", [typically(spreads(run)[n]) for run in runs]),
        ):
            assert f"| {name} | {at} | {' | '.join(said)} |" in page
    reached = {run: {steps: 100 * mean for steps, mean in success_of(run).items()} for run in runs}
    for steps, at in ((1_200_000, "1.2M"), (1_600_000, "1.5M, 1.6M")):
        here = [reached[run].get(steps, reached[run].get(1_500_000)) for run in runs]
        assert f"| success, in % | {at} | {' | '.join(f'{value:.1f}' for value in here)} |" in page
    ahead = [reached[f"mean-ln{end}"][1_200_000] - reached[f"mean{end}"][1_200_000] for end in ("-first", "")]
    assert f"LN leads by {ahead[0]:.0f} points in the first pair and by {ahead[1]:.0f} in the second" in page
    assert f"({reached['mean'][1_600_000]:.1f} and {reached['mean-ln'][1_600_000]:.1f})" in page
    last = {run: f"{100 * success_of(run)[8_000_000]:.1f}" for run in ("mean", "mean-ln", "fg", "fg-ln")}
    assert f"mean {last['mean']}, with LN {last['mean-ln']}; FairGrad {last['fg']}, with LN {last['fg-ln']}." in page
    assert f"+ LN-c + PopArt {last['mean-ln']} at 8M" in page


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
    assert f"actor {x(plain.loc['actor', 'spread'])} {of(plain, 'actor')}, of 1,280 minibatches" in page
    assert set(plain["minibatches"]) == {1280}
    health = toppo_diag.health([str(DATA / "fg.h5"), str(DATA / "mean-ln.h5")]).numbers.set_index("condition")
    cosine, mass = health["mean_abs_cosine"], health["top_1_mass"]
    assert (
        f"{cosine['+PopArt']:.2f} to {cosine['+PopArt+LN']:.2f}; {mass['+PopArt']:.2f} to {mass['+PopArt+LN']:.2f}; "
        f"{mass['+PopArt+LN+FG']:.2f} | agree"
    ) in page
    product = toppo_diag.contributions(str(DATA / "fg.h5"))
    shares = product.numbers.set_index("condition")
    said = [
        f"{x(row['spread'])} {ranged(np.array([row['spread_low'], row['spread_high']]))}"
        for _, row in shares.loc[["raw, mean", "+PopArt, mean", "+PopArt, FG"]].iterrows()
    ]
    assert f"{said[0]}, {said[1]}, {said[2]} on both" in page
    contributions = text("docs/instruments/contributions.md")
    sign = "\N{MULTIPLICATION SIGN}"
    spread = {condition: x(row["spread"], sign) for condition, row in shares.iterrows()}
    assert f"the median spread is {spread['+PopArt, FG']}." in contributions
    assert f"from {spread['raw, mean']} to {spread['+PopArt, mean']} here" in contributions
    lines = product.tables["main"]
    first = lines[(lines["condition"] == "raw, mean") & (lines["env_steps"] == 500_000)].set_index("task")[
        "contribution"
    ]
    assert set(first.nlargest(2).index) == {"reach-v3", "drawer-close-v3"} and first.idxmin() == "pick-place-v3"
    assert first.nlargest(2).min() > 1000 * first.min()  # "over a thousand times as much as"


def test_the_pages_state_how_exactly_theorem_1_holds():
    product = toppo_diag.invariance(str(DATA / "fg-ln.h5"), combiners=["mean", "fairgrad"])
    found = product.numbers
    worst = found.set_index(["combiner", "quantity"])["worst"]
    exact, papers = worst["fairgrad:alpha=1"], worst["fairgrad-paper"]
    page = text("figures/README.md")
    assert f"{found['minibatches'].iloc[0]} minibatches: distance at most {exact['distance']:.2g}" in page
    assert f"norm off by at most {exact['norm_error']:.2g}; the paper's own solver" in page
    assert f"at its training tolerance: up to {papers['distance']:.2g} and {papers['norm_error']:.2g} |" in page
    far = product.tables["minibatches"].set_index("combiner")["distance"]["fairgrad-paper"]
    digit, power = f"{far.min():.0e}".split("e")
    squares = f"from ${digit} \\times 10^{{{int(power)}}}$ to {far.max():.1g}, with a median of {far.median():.2g}."
    assert squares in text("docs/instruments/invariance.md")
    most = f"{max(exact['distance'], exact['norm_error']):.0e}".replace("e-0", "e-")
    results = text("docs/results.md")
    assert f"solved again in double precision | {most} | 1e-15 |" in results and f"than the {most} above" in results


def test_the_page_on_weights_states_the_shares_of_its_picture():
    last = (
        toppo_diag.weights(str(DATA / "fg-ln.h5"), side="critic").numbers.set_index("task")["share_last"].sort_values()
    )
    last.index = last.index.str.removesuffix("-v3")
    page = text("docs/instruments/weights.md")
    (second, first), (least, next_least) = last.index[-2:], last.index[:2]
    assert f"`{first}` and `{second}` get {last[first]:.2f} and {last[second]:.2f}" in page
    assert f"and `{least}` and `{next_least}` get less than 0.01." in page and last[next_least] < 0.01


def test_the_page_on_curves_states_the_numbers_of_its_pictures():
    page = text("docs/instruments/curves.md")
    long = ("mean", "mean-ln", "fg", "fg-ln")
    archives = [str(DATA / f"{run}.h5") for run in (*long, "toppo")]
    worst = toppo_diag.curves(archives, figure="worst-k").numbers.set_index("label")["worst_5"]
    least = worst.drop("TOPPO").min()
    assert f"are at {least:.0f}% or more after 8M steps, and at {worst['TOPPO']:.0f}% under TOPPO after 2M." in page
    for run in long:
        log = read_runs([str(DATA / f"{run}.h5")])[0]
        half = np.argmax(log.success >= 0.5, axis=0)
        assert log.tasks[int(half.argmax())] == "pick-place-v3" and (log.success.max(axis=0) >= 0.5).all()
    log = read_runs([str(DATA / "toppo.h5")])[0]
    last = dict(zip(log.tasks, log.success[-1], strict=True))
    assert f"`push` is at {100 * last['push-v3']:.0f}%, and `pick-place` at {100 * last['pick-place-v3']:.0f}%" in page
    assert f"A mean of {100 * log.success[-1].mean():.0f}% may come" in page


def test_the_page_on_replay_states_the_numbers_of_its_picture():
    product = toppo_diag.replay(str(DATA / "fg-ln.h5"), combiners="all")
    numbers = product.numbers.set_index("combiner")
    page = text("docs/instruments/replay.md")
    assert f"{['Eighteen'][len(numbers) - 18]} combiners on the {numbers['minibatches'].iloc[0]} critic Grams" in page
    assert f"worst task is about {numbers['worst_cosine']['mean']:.2f}" in page
    for follows in ("sum", "uw", "dwa"):
        assert abs(numbers["worst_cosine"][follows] - numbers["worst_cosine"]["mean"]) < 0.01
    for avoids in ("pcgrad", "upgrad", "dualproj", "mgda", "cagrad"):
        assert abs(numbers["worst_cosine"][avoids]) < 0.06
    cosine = product.tables["main"].groupby(["combiner", "task"])["cosine"].median()
    led = cosine["mean"].nlargest(2).index.str.removesuffix("-v3")
    assert f"follow `{led[0]}` and `{led[1]}` here" in page
    assert f"a distance of {numbers['distance_to_training']['nash-mtl']:.2f}, because its step is" in page
    shorter = numbers["norm"]["fairgrad:alpha=1"] / numbers["norm"]["nash-mtl"]
    assert f"is {shorter:.0f} times shorter" in page


def test_the_results_page_states_medians():
    page = text("docs/results.md")
    raw = spreads("mean", raw=True)
    for said, values, shown, paper in (
        ("at 0.5M steps, without LayerNorm", cosines("mean")[EARLY], decimals, "0.34"),
        ("the same with LayerNorm", cosines("mean-ln")[EARLY], decimals, "0.20"),
        ("over the run with FairGrad, without LayerNorm", cosines("fg"), decimals, "0.24"),
        ("over the run without FairGrad, with LayerNorm", cosines("mean-ln"), decimals, "0.10"),
        ("critic gradient at 0.5M steps, without LayerNorm, before PopArt", raw[EARLY], plainly, "9,864"),
        ("the same at 4.5M steps", raw[MID], plainly, "about 200"),
        ("the same at 7.5M steps", raw[LATE], plainly, "about 700"),
    ):
        assert f"{said} | {shown(values)} | {paper} |" in page
    health = toppo_diag.health([str(DATA / "mean.h5"), str(DATA / "mean-ln.h5")]).numbers.set_index("condition")
    course = np.median(raw, axis=1)
    least = int(course.argmin())
    assert f"falls from about 20,000 at 0.5M steps to {x(course[least], '')} at 3M steps" in page
    assert opened("mean").steps[least] == 3_000_000 and round(course[0], -4) == 20_000
    assert f"lies between {course[least + 1 :].min():.0f} and {course[least + 1 :].max():.0f} after that" in page
    fg = np.median(spreads("fg", raw=True), axis=1)
    assert f"In `fg.h5`, which has no LayerNorm either, it is {x(fg[MID], '')} and {x(fg[LATE], '')}." in page
    assert 4 < 200 / course[MID] < 5 > 700 / course[LATE] > 4  # "four to five times narrower"
    row = health.loc["+PopArt+LN+FG"]
    top_1 = f"{row['top_1_mass']:.2f} ({row['top_1_mass_low']:.2f} to {row['top_1_mass_high']:.2f})"
    assert f"largest contribution of one task under FairGrad (top-1 mass) | {top_1} | 0.14 |" in page
    actor = toppo_diag.norms(str(DATA / "mean-ln.h5"), side="actor").numbers.iloc[0]
    spread = f"{x(actor['spread'], '')} ({x(actor['spread_low'], '')} to {x(actor['spread_high'], '')})"
    assert f"actor with LayerNorm on the critic, over the run | {spread} | 4.1 |" in page


def test_the_results_page_states_success():
    page = text("docs/results.md")
    for run, name in (
        ("vanilla", "vanilla: mean combiners, no PopArt, no LayerNorm"),
        ("vanilla-no-clip", "vanilla without the value clip"),
        ("mean", "PopArt, mean combiners, no LayerNorm"),
        ("mean-ln", "PopArt, mean combiners, LayerNorm on the critic"),
        ("fg", "PopArt, FairGrad on both sides, no LayerNorm"),
        ("fg-ln", "PopArt, FairGrad on both sides, LayerNorm on the critic"),
        ("toppo", "TOPPO"),
    ):
        log = read_runs([str(DATA / f"{run}.h5")])[0]
        success, steps = log.success[-1], log.env_steps[-1] / 1e6
        row = f"{100 * success.mean():.1f} % | {(success >= 0.8).sum()} | {steps:.1f}M | 0"
        assert f"| {name} | {row} |" in page
    with_both = {steps: 100 * mean for steps, mean in success_of("fg-ln").items()}
    push = dict(zip(log.tasks, read_runs([str(DATA / "fg-ln.h5")])[0].success[-1], strict=True))["push-v3"]
    assert f"had {max(with_both.values()):.1f} % at 6.4M steps and ends at {with_both[8_000_000]:.1f} %, with" in page
    assert with_both[6_400_000] == max(with_both.values()) and f"`push` at {100 * push:.0f} %" in page


def test_the_page_on_tables_states_the_budgets_of_its_table():
    budget = 20_000_000
    shares = [100 * int(read_runs([str(DATA / f"{run}.h5")])[0].env_steps[-1]) / budget for run in ("mean-ln", "toppo")]
    assert "{:g}% and {:g}% of the steps".format(*shares) in text("docs/instruments/tables.md")


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
    said = [f"from {m(none[stage])} to {m(popart[stage])}" for stage in (EARLY, LATE, MID)]
    assert f"without LayerNorm {said[0]} and {said[1]}." in heatmaps
    assert f"the middle row without LayerNorm: {said[2]}." in heatmaps
    for stage in (EARLY, LATE):
        assert np.median(ln[stage]) > np.median(ln_popart[stage])  # "in both runs"
    early = [float(np.median(cosines(run)[EARLY])) for run in ("mean", "mean-ln")]
    assert f"mean $|\\cos|$ is {early[0]:.2f}; with LayerNorm, at the same step, it is {early[1]:.2f}" in heatmaps
    assert int(cosines("mean-ln")[EARLY].argmax()) == 0  # "it has the largest mean |cos| of the five"
    stages = (EARLY, MID, LATE)
    per_snapshot = np.median(spreads("mean-ln", "actor"), axis=1)
    three = "{}, {} and {}".format(*(x(per_snapshot[n], sign) for n in stages))
    assert f"median spread is {three} at these three stages" in heatmaps
    assert f"Over all snapshots it is up to {x(per_snapshot.max(), sign)}." in heatmaps
    actor = [float(np.median(cosines("mean-ln", "actor")[n])) for n in stages]
    assert f"falls from {actor[0]:.2f} to {actor[-1]:.2f}." in heatmaps
    for raw in (False, True):
        product = toppo_diag.norms(str(DATA / "mean-ln.h5"), raw=raw)
        critic = product.numbers.set_index("side").loc["critic"]

        def number(name: str, row=critic) -> str:
            return x(row[name], sign)

        def around(name: str, row=critic) -> str:
            return f"{x(row[name], sign)} ({x(row[f'{name}_low'], sign)} to {x(row[f'{name}_high'], sign)})"

        first, last = "spread_first_step", "spread_last_step"
        if raw:
            assert f"{number('spread')} in the median, and falls from {number(first)}" in norms
            assert f"to {number(last)} in the last" in norms
        else:
            low, high = x(critic["spread_low"], sign), x(critic["spread_high"], sign)
            over = f"{number('spread')} in the median over {critic['minibatches']:,.0f} minibatches ({low} to {high})"
            assert over in norms
            assert f"{number(first)} in the median of the first collect {around(first).split(' ', 1)[1]}" in norms
            assert f"{number(last)} in that of the last {around(last).split(' ', 1)[1]}." in norms
            lines, aggregates = (
                table[(table["side"] == "critic") & (table["env_steps"] == 3_500_000)]
                for table in (product.tables["main"], product.tables["aggregators"])
            )
            longest = lines.loc[lines["norm"].idxmax()]
            assert longest["task"] == "pick-place-v3"
            of_mean = aggregates["mean_norm"].item()
            assert f"it has {of_mean:.3g} at 3.5M steps, where `pick-place` has {longest['norm']:.3g}." in norms


def test_the_pages_state_the_conflicts_of_the_run():
    found = toppo_diag.conflicts(str(DATA / "mean-ln.h5"))
    numbers = found.numbers.set_index("side")
    negative, beyond = (100 * numbers[name] for name in ("negative_share", "conflict_share"))
    for page in (text("figures/README.md"), text("docs/instruments/conflicts.md")):
        by_sign = (
            f"{negative['actor']:.0f}% of the actor's pairs and {negative['critic']:.0f}% of the critic's are negative"
        )
        assert by_sign in page
        assert f"eyond noise it is {beyond['actor']:.1f}% and {beyond['critic']:.1f}%" in page
    over_time = found.tables["main"]
    first = over_time[over_time["side"] == "critic"].iloc[0]
    assert first["conflict_share"] == 0
    shares = over_time.pivot(index="env_steps", columns="side", values="conflict_share")
    early = 100 * shares["critic"].loc[:2_000_000].max()
    assert early == 100 * shares["critic"].max()
    assert f"up to {early:.0f}% in single collects before 2M steps" in text("figures/README.md")
    assert f"up to {early:.0f}% of the critic's pairs" in text("docs/instruments/conflicts.md")
    assert f"{100 * shares['actor'].iloc[0]:.1f}% of its pairs are in conflict in the first two collects" in text(
        "figures/README.md"
    )
    assert shares["actor"].iloc[0] == shares["actor"].iloc[1] and shares["actor"].iloc[20:].median() == 0
    assert f"an effective rank of {first['effective_rank']:.1f}:" in text("docs/instruments/conflicts.md")


def test_the_page_on_the_trap_describes_its_picture():
    page = text("docs/instruments/trap.md")
    product = toppo_diag.trap(str(DATA / "mean.h5"))
    assert not any(product.numbers["flag"])
    shares, success = (
        product.tables["main"].pivot(index="env_steps", columns="task", values=name) for name in ("share", "success")
    )
    in_the_band = (shares < 0.01).sum(axis=1)
    assert set(in_the_band.loc[2_500_000:3_500_000]) == {7, 8} and in_the_band.loc[8_000_000] == 0
    half = shares["pick-place-v3"] >= 0.495
    assert half.loc[1_500_000:7_000_000].drop(5_500_000).all() and not half.loc[[500_000, 1_000_000, 7_500_000]].any()
    assert success.loc[8_000_000].idxmin() == "pick-place-v3"
    assert f"this average of its success is {success.loc[8_000_000, 'pick-place-v3']:.2f}." in page
    reach = success["reach-v3"].loc[[1_000_000, 5_000_000]]
    assert f"rises from {reach.iloc[0]:.2f} to {reach.iloc[1]:.2f} between 1M and 5M steps" in page
    assert (shares["reach-v3"].loc[1_000_000:5_000_000] < 0.01).all()


def test_the_page_on_health_states_the_numbers_of_its_picture():
    page = text("docs/instruments/health.md")
    found = toppo_diag.health([str(DATA / "fg.h5"), str(DATA / "mean-ln.h5")]).numbers.set_index("condition")
    cosine, mass = found["mean_abs_cosine"], found["top_1_mass"]
    assert f"halves the cosines ({cosine['+PopArt']:.2f} to {cosine['+PopArt+LN']:.2f})" in page
    assert cosine["+PopArt+LN"] < cosine["+PopArt"] / 2
    assert f"lowers the top-1 mass ({mass['+PopArt+LN']:.2f} to {mass['+PopArt+LN+FG']:.2f})" in page
    assert f"as in the last column ({cosine['+PopArt+LN+FG']:.2f} and {mass['+PopArt+LN+FG']:.2f})" in page
    ends = [float(np.median(cosines("fg")[n])) for n in (0, -1)]
    assert f"the first five dots have a median of {ends[0]:.2f}, the last five of {ends[1]:.2f}." in page

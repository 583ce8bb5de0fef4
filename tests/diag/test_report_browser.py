"""The report in a real browser: what a reader does with it, and that nothing is fetched and no error is logged."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toppo_diag
from tests.diag import browser, runs
from toppo.combiners.geometry import cosines
from toppo.dump import DumpWriter, ScalarSpec, StepAxis, open_dump

HOSTILE = ('<script>alert(1)</script>"', "<img src=x onerror=alert(2)>\n,'", "a\u202eb\u2066c & </script><!--")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. Without it the tests are skipped, or fail where it is required, as in CI."""
    if (reason := browser.missing()) is not None:
        if browser.required():
            pytest.fail(f"{browser.REQUIRED} is set, but {reason}")
        pytest.skip(reason)
    with browser.launched() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of two runs with the same settings and of a third one, and of a hostile run."""
    folder = tmp_path_factory.mktemp("pages")
    for name, options in (
        ("first", {}),
        ("second", {}),
        ("other", {"layernorm": "critic", "combiner": "mean", "snapshots": 4}),
    ):
        runs.record(folder / name, **options)
    toppo_diag.report([folder / name for name in ("first", "second", "other")], out=folder / "three.html")
    toppo_diag.report(folder / "first", out=folder / "one.html")
    hostile(folder / "<b>run&amp;")
    toppo_diag.report(folder / "<b>run&amp;", out=folder / "hostile.html")
    return folder


def hostile(path: Path) -> None:
    """A run whose every text is an attack."""
    rng = np.random.default_rng(0)
    config = {"benchmark": HOSTILE[0], "seed": HOSTILE[2], "popart": HOSTILE[1]}
    with DumpWriter.create(
        path / "dump.zarr",
        tasks=list(HOSTILE),
        sides={"trunk": runs.LAYERS[:2]},
        minibatch_scalars={"loss": ScalarSpec(("task",), "f8", HOSTILE[0], HOSTILE[1])},
        minibatches=2,
        step=StepAxis("step", HOSTILE[1]),
        attrs={"config": config, "combiners": {"trunk": HOSTILE[0]}},
    ) as dump:
        for s in range(3):
            for m in range(2):
                J = rng.standard_normal((3, 54)).astype(np.float32) * np.array([[1e-3], [1], [1e3]], dtype=np.float32)
                dump.record_minibatch(m, slabs={"trunk": J}, scalars={"loss": rng.random(3)})
            dump.commit_snapshot(step=10 * (s + 1))


class Opened:
    """A page in the browser, with all that it logged and asked for."""

    def __init__(self, tab: Any, path: Path, wait: bool = True) -> None:
        self.tab, self.problems = tab, []
        tab.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        tab.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda r: None if r.url.startswith((path.as_uri(), "data:", "blob:")) else self.asked(r.url))
        tab.goto(path.as_uri())
        if wait:
            tab.wait_for_selector("html[data-ready=true]")

    def asked(self, url: str) -> None:
        self.problems.append(f"request of {url}")

    def words(self, view: str) -> str:
        """What a view says of itself, after it was drawn."""
        self.tab.locator(f"#{view}").scroll_into_view_if_needed()
        self.tab.wait_for_selector(f"#{view} .main-svg, #{view} .absent")
        self.settle()
        return str(self.tab.locator(f"#{view}-words").text_content())

    def settle(self) -> None:
        """Wait until a change is drawn."""
        self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def choose(self, control: str, value: str) -> None:
        self.tab.select_option(f"#{control}", value)
        self.settle()

    def table(self, view: str) -> list[dict[str, str]]:
        """The CSV that a view's button saves."""
        self.words(view)
        with self.tab.expect_download() as download:
            self.tab.locator(f"section:has(#{view}) .save").click()
        return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))


@pytest.fixture
def opened(chromium: Any, pages: Path) -> Iterator[Any]:
    """Opens a page; at the end nothing may have been logged or fetched."""
    seen: list[Opened] = []

    def of(name: str, width: int = 1280, theme: str = "light", wait: bool = True) -> Opened:
        tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        seen.append(Opened(tab, pages / name, wait))
        return seen[-1]

    yield of
    for page in seen:
        page.tab.close()
        assert page.problems == []


def median_cosine(run: Path, side: str, entry: int) -> float:
    """Of the first pair at a collect of the stream."""
    gram = open_dump(run).gram_stream(side).values[entry]
    return float(np.median(cosines(gram)[:, 0, 1]))


def test_the_slider_moves_all_views_by_keyboard(opened: Any, pages: Path) -> None:
    page = opened("one.html")
    for entry in (4, 3):
        assert f"reach and push: {median_cosine(pages / 'first', 'critic', entry):.4f}" in page.words("heatmap")
        page.tab.locator("#step").focus()
        page.tab.keyboard.press("ArrowLeft")
        page.settle()
    assert "1,500,000 environment steps (3 of 5)" in page.tab.locator("#step-text").text_content()
    assert page.tab.locator("#step").get_attribute("aria-valuetext") == "1,500,000 environment steps (3 of 5)"
    assert "at 1,500,000 environment steps" in page.words("norms")


def test_a_click_on_a_cell_draws_its_pair(opened: Any) -> None:
    page = opened("one.html")
    page.words("heatmap")
    box = page.tab.locator("#heatmap .nsewdrag").first.bounding_box()
    page.tab.mouse.click(box["x"] + box["width"] * 2.5 / 4, box["y"] + box["height"] * 0.5 / 4)  # row 0, column 2
    page.settle()
    assert page.words("pair").startswith("reach against door-open: cosine")
    assert "Lowest in the layer" in page.words("pair")
    last = [row for row in page.table("pair") if not row["layer"]][-1]
    assert float(last["cosine_low"]) <= float(last["median_cosine"]) <= float(last["cosine_high"])
    assert page.tab.input_value("#pair-j") == "2"


def test_a_task_is_marked_in_every_view_by_click_and_by_button(opened: Any) -> None:
    page = opened("one.html")
    page.words("norms")
    page.tab.locator("#task-list summary").click()
    chip = page.tab.locator("#chips button").nth(1)
    chip.focus()
    page.tab.keyboard.press("Enter")
    page.settle()
    assert chip.get_attribute("aria-pressed") == "true"
    for view in ("norms", "contributions", "curves"):
        page.words(view)
        shown = page.tab.evaluate(
            f"() => document.getElementById('{view}').data.filter((t) => t.showlegend).map((t) => t.name)"
        )
        assert shown == ["push"], view


def test_side_condition_layer_run_and_theme_can_be_switched(opened: Any) -> None:
    page = opened("three.html")
    page.choose("side", "actor")
    assert "first, actor at" in page.words("heatmap")
    page.choose("side", "critic")
    page.choose("condition", "PopArt taken back")
    assert "first, critic at" in page.words("heatmap")
    page.choose("condition", "as trained")
    page.choose("layer", "out")
    assert "first, critic, out at" in page.words("heatmap")
    page.choose("run", "2")
    assert "other, critic" in page.words("heatmap")
    page.choose("theme", "dark")
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.tab.evaluate("document.getElementById('heatmap').layout.paper_bgcolor") == "#17181c"


def test_two_runs_and_their_difference_stand_side_by_side(opened: Any, pages: Path) -> None:
    page = opened("three.html")
    page.choose("other", "2")
    page.words("heatmap")
    titles = page.tab.evaluate("document.getElementById('heatmap').layout.annotations.map((a) => a.text)")
    assert titles == ["first", "other", "difference"]
    z = page.tab.evaluate("document.getElementById('heatmap').data.map((t) => t.z[0][1])")
    assert z[2] == pytest.approx(z[0] - z[1], abs=1e-6)
    assert "other is shown at" in page.words("heatmap")
    # The slider is at the last step of the first run, 2.5M; the other run ends at 2M.
    assert z[1] == pytest.approx(median_cosine(pages / "other", "critic", 3), rel=1e-5)


def test_seeds_of_one_configuration_are_drawn_as_mean_and_interval(opened: Any) -> None:
    page = opened("three.html")
    page.words("totals")
    names = page.tab.locator("#view-totals .legend > span").all_text_contents()
    assert names == ["other", "first and other seeds: mean of 2 seeds"]


def test_the_numbers_are_those_of_the_other_commands(opened: Any, pages: Path) -> None:
    page, run = opened("one.html"), pages / "first"
    of_norms = toppo_diag.norms(run, side="critic")
    expected = {(r.env_steps, r.task): r.norm for r in of_norms.tables["main"].itertuples()}
    rows = page.table("norms")
    assert len(rows) == len(expected)
    for row in rows:
        assert float(row["gradient norm"]) == pytest.approx(
            expected[int(row["env_steps"]), f"{row['task']}-v3"], rel=1e-6
        )
    for kind, value in (
        ("spread of gradient norms", of_norms.tables["aggregators"]["spread"].iloc[-1]),
        ("negative pairs", toppo_diag.conflicts(run, side="critic").tables["main"]["negative_share"].iloc[-1]),
        ("effective rank", toppo_diag.conflicts(run, side="critic").tables["main"]["effective_rank"].iloc[-1]),
    ):
        page.words("totals")
        page.choose("total-kind", kind)
        assert page.words("totals").endswith(f"{value:.4g}.") or f"{float(f'{value:.4g}'):g}" in page.words("totals")
        assert float(page.table("totals")[-1][kind]) == pytest.approx(value, rel=1e-6)


def test_findings_show_the_numbers_of_the_json_and_lead_to_their_view(opened: Any, pages: Path) -> None:
    page = opened("three.html")
    rows = toppo_diag.report(pages / "other").headline
    trouble = next(row for row in rows if row["check"] == "top_1" and row["verdict"] == "trouble")
    number = "{number:.3g} ({number_low:.3g} to {number_high:.3g})".format(**trouble)
    item = page.tab.locator('li.trouble[data-kind="top_1"]').last
    assert f"{number}; a finding above {trouble['limit']:.3g}. Since step {trouble['since']:,}" in item.text_content()
    item.get_by_role("button", name="Show").click()
    page.settle()
    assert page.tab.input_value("#run") == "2"
    assert page.tab.locator("#step-text").text_content().startswith(f"{trouble['since']:,}")
    holder = trouble["tasks"][0].removesuffix("-v3")
    assert holder in [c.text_content() for c in page.tab.locator('#chips button[aria-pressed="true"]').all()]


def test_a_hostile_run_shows_as_text(opened: Any) -> None:
    page = opened("hostile.html")
    for view in ("heatmap", "pair", "norms", "contributions", "totals", "layers", "curves"):
        page.words(view)
    assert page.tab.locator("h1").text_content() == "<b>run&amp;"
    assert [c.text_content() for c in page.tab.locator("#chips button").all()] == [
        '<script>alert(1)</script>"',
        "<img src=x onerror=alert(2)>\\n,'",
        "a\\u202eb\\u2066c & </script><!--",
    ]
    assert page.tab.locator("img, #views script, #views a[href]").count() == 0
    legend = page.tab.locator("#view-norms .legend > span").all_text_contents()
    assert sorted(legend) == sorted(c.text_content() for c in page.tab.locator("#chips button").all())
    (row, *_) = page.table("norms")
    assert row["task"] == HOSTILE[0]
    assert "\u202e" not in page.tab.content()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_does_not_scroll_sideways(opened: Any, theme: str) -> None:
    page = opened("three.html", 390, theme)
    for view in ("heatmap", "pair", "norms", "contributions", "totals", "layers", "curves"):
        page.words(view)
    assert page.tab.evaluate("document.documentElement.scrollWidth") == 390
    assert page.tab.evaluate("document.documentElement.dataset.theme") == theme


def test_it_prints_every_view_within_the_page(opened: Any) -> None:
    page = opened("one.html", theme="dark")
    page.tab.emulate_media(media="print")
    page.settle()
    drawn = page.tab.locator(".plot .main-svg").first
    assert page.tab.evaluate(
        "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('.main-svg, .absent'))"
    )
    assert drawn.bounding_box()["width"] <= 700
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.tab.pdf(format="A4").startswith(b"%PDF")


def test_every_picture_has_words_and_every_control_a_name(opened: Any) -> None:
    page = opened("one.html")
    for view in ("heatmap", "pair", "norms", "contributions", "totals", "layers", "curves"):
        words = page.words(view)
        assert len(words) > 20 and page.tab.locator(f"#{view}").get_attribute("aria-label") == words
    unnamed = page.tab.evaluate(
        "[...document.querySelectorAll('select, input, button')]"
        ".filter((e) => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel).length"
    )
    assert unnamed == 0


def test_a_zoom_in_time_is_that_of_all_views(opened: Any) -> None:
    page = opened("one.html")
    page.words("norms")
    page.tab.evaluate("Plotly.relayout('norms', {'xaxis.range[0]': 1e6, 'xaxis.range[1]': 2e6})")
    page.settle()
    for view in ("pair", "contributions", "curves"):
        page.words(view)
        assert page.tab.evaluate(f"document.getElementById('{view}').layout.xaxis.range") == [1e6, 2e6], view


def test_an_open_page_follows_a_run_that_goes_on(opened: Any, pages: Path, tmp_path: Path) -> None:
    run, file = runs.record(tmp_path / "live", snapshots=2, complete=False), pages / "live.html"
    renewing = threading.Thread(
        target=toppo_diag.report, args=(run,), kwargs={"out": file, "watch": True, "interval": 1}
    )
    renewing.start()
    while not file.exists():
        renewing.join(0.1)
    page = opened("live.html")
    assert "looks for news every 1 s" in page.tab.locator("#following").text_content()
    assert "not complete" in page.tab.locator(".facts").text_content()
    page.choose("side", "actor")
    DumpWriter.resume(run / "dump.zarr").close()  # the run ends
    renewing.join(30)
    assert not renewing.is_alive()
    page.tab.locator(".facts", has_text=" tasks, complete").wait_for(timeout=60_000)
    page.tab.wait_for_selector("html[data-ready=true]")
    assert page.tab.input_value("#side") == "actor"  # what was chosen stays
    assert page.tab.locator("#following").text_content() == ""


def test_the_numbers_in_the_page_are_json_and_float32(pages: Path) -> None:
    text = (pages / "hostile.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(found)["runs"][0]["cubes"]


def test_a_notebook_shows_the_page_in_its_frame(opened: Any, pages: Path) -> None:
    frame = toppo_diag.report(pages / "first")._repr_html_()
    (pages / "notebook.html").write_text(f'<!doctype html><html data-ready="true"><body>{frame}</body></html>')
    page = opened("notebook.html")
    inside = page.tab.frame_locator("iframe")
    inside.locator("html[data-ready=true]").wait_for()
    inside.locator("#view-heatmap").scroll_into_view_if_needed()
    inside.locator("#heatmap .main-svg").first.wait_for()
    inside.locator("#side").select_option("actor")
    inside.locator("#heatmap-words", has_text="first, actor at").wait_for()


def little(folder: Path) -> dict[str, Path]:
    """Runs that lack something."""
    with DumpWriter.create(folder / "nothing.zarr", tasks=["a", "b"], sides={"trunk": 3}):
        pass
    with DumpWriter.create(folder / "one-task.zarr", tasks=["a"], sides={"trunk": 3}) as dump:
        for step in range(4):
            dump.record(step=step, trunk=np.ones((1, 3), dtype=np.float32))
    with DumpWriter.create(folder / "zeros.zarr", tasks=["a", "b"], sides={"trunk": 3}) as dump:
        for step in range(4):
            dump.record(step=step, trunk=np.zeros((2, 3), dtype=np.float32))
    runs.record(folder / "bare", bare=True, stream=False, snapshots=1)
    runs.record(folder / "grams", slabs=False, stream=False)
    names = ("nothing.zarr", "one-task.zarr", "zeros.zarr", "bare", "grams")
    return {name: folder / name for name in names}


def test_a_run_with_little_opens_without_an_error(opened: Any, pages: Path, tmp_path: Path) -> None:
    for name, run in little(tmp_path).items():
        toppo_diag.report(run, out=pages / "little.html")
        page = opened("little.html", wait=name != "nothing.zarr")
        assert page.tab.locator("#findings li").count() >= 1
        if name == "nothing.zarr":
            assert page.tab.locator("#views").is_hidden()
            continue
        for view in ("heatmap", "pair", "norms", "contributions", "totals", "layers", "curves"):
            page.words(view)
        assert page.tab.locator("#curves .absent").count() == (name != "grams"), name

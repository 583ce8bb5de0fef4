"""Tables of runs beside the paper's rows, and the comparison number by number."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.diag import runs
from tests.diag.evaluated import evaluate, flat
from tests.diag.test_cli import diag, table  # noqa: F401  (a fixture)
from toppo.dump import export
from toppo_diag.analysis.paper_tables import NOTHING, TABLE_FORMS
from toppo_diag.analysis.runs import canonical_method, method_name
from toppo_diag.markup import latex
from toppo_diag.reading.published import read_published

PUBLISHED = Path(__file__).parents[2] / "figures" / "published"
MT50 = tuple(dict.fromkeys(row.task for row in read_published(PUBLISHED).of("D.6")))
HERE = ("--published", PUBLISHED)


def ramp(last: float, s: int = 6, k: int = 10) -> np.ndarray:
    """All tasks rise alike from 0 to `last`."""
    return flat(*np.linspace(0, last, s), k=k)


@pytest.fixture
def toppo(tmp_path: Path) -> list[Path]:
    """Two seeds of the headline on MT10, at 2M of 20M steps; the last checkpoint by hand: 0.55 and 0.75."""
    first, second = ramp(0.9), ramp(0.75)
    first[-1] = [1, 1, 1, 1, 1, 0.5, 0, 0, 0, 0]
    return [evaluate(tmp_path / "a", first, seed=1), evaluate(tmp_path / "b", second, seed=4)]


def ours(rows: list[dict[str, str]], **where: object) -> dict[str, str]:
    """The one row of ours with these values."""
    found = [r for r in rows if r["whose"] == "ours" and all(r[c] == str(v) for c, v in where.items())]
    assert len(found) == 1, where
    return found[0]


def cells(markdown: str, first: str) -> list[str]:
    """The cells of a Markdown table's line."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_of_mt10(diag, toppo):  # noqa: F811
    code, out, err = diag("tables", "--name", "table", *toppo, *HERE, "--json", "--out", "o")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert [row["table"] for row in answer["numbers"]] == ["2", "B.2", "D.5", "D.10", "D.11", "D.8", "D.9"]
    stems = ("table-2", "table-b2", "table-d5", "table-d10", "table-d11", "table-d8", "table-d9")
    assert {Path(file).name for file in answer["files"]} == {f"{s}.{e}" for s in stems for e in ("csv", "md", "tex")}
    markdown = Path("o/table-2.md").read_text()
    assert cells(markdown, "**ours: TOPPO (n = 2, 2M steps)**")[1:] == ["685K", "65.0 ± 14.1", *[NOTHING] * 7]
    assert cells(markdown, "ARS-LoRA")[1:5] == ["3878K", "99.5 ± 0.8", "16123K", NOTHING]
    assert (
        "- ours: TOPPO on MT10 v2: 2 seeds (1, 4); the paper has 10 seeds; 2M of the paper's 20M steps (10%)"
        in markdown
    )
    per_task = Path("o/table-d5.md").read_text()
    assert cells(per_task, "Task")[-2:] == ["TOPPO", "ours: TOPPO (n = 2, 2M steps)"]
    assert cells(per_task, "reach-v3")[-2:] == ["100.0 ± 0.0", "87.5 ± 17.7"]
    assert cells(per_task, "drawer-close-v3")[-1] == "62.5 ± 17.7"
    four = cells(Path("o/table-d10.md").read_text(), "**ours")
    assert four[1:] == ["73.5 ± 2.1", "66.0 ± 8.5", "65.0 ± 14.1", "65.0 ± 14.1", *[NOTHING] * 4]
    steps = cells(Path("o/table-d11.md").read_text(), "**ours")  # seed 1 is best at 1.6M (0.72), seed 4 at 2M
    assert steps[1:] == ["MT10", "2", "1.8", "[1.7, 1.9]", "1.6-2.0"]
    assert cells(Path("o/table-d8.md").read_text(), "**ours: MT10 v2**")[2:4] == ["2", NOTHING]
    assert cells(Path("o/table-d9.md").read_text(), "**ours: MT10 v2**")[1:] == [
        *("2", "all of A/B/C/D", "best/peak/final/late, all reported", "std", "50", "v2", NOTHING)
    ]


def test_the_csv_holds_every_number_in_full(diag, toppo):  # noqa: F811
    diag("tables", "--name", "table", *toppo, *HERE, "--table", "2,D.5", "--out", "o")
    rows = table("o/table-2.csv")
    paper = [row for row in rows if row["whose"] == "paper"]
    assert len(paper) == 144
    mean = ours(rows, metric="final", benchmark="MT10")
    assert (float(mean["value"]), mean["n"], mean["env_steps"]) == (pytest.approx(65.0), "2", "2000000")
    assert float(mean["std"]) == pytest.approx(np.sqrt(200))
    assert float(mean["sem"]) == pytest.approx(10)
    assert len([row for row in table("o/table-d5.csv") if row["whose"] == "ours"]) == 10
    assert not Path("o/table-d10.csv").exists()


def mt50(tmp_path: Path, name: str, last: float, **options: object) -> Path:
    return evaluate(
        tmp_path / name,
        ramp(last, k=50),
        tasks=MT50,
        every=20_000_000,
        benchmark="MT50",
        env_steps_per_epoch=1_000_000,
        **options,
    )


def test_tables_of_mt50(diag, tmp_path):  # noqa: F811
    """The sub-cube of Table D.1 at the paper's own budget, where PopArt adds 10 points without FG-c and 2 with."""
    last = {"ln": 0.5, "ln-popart": 0.6, "ln-fg": 0.7, "ln-popart-fg": 0.72, "toppo": 0.8}
    made = [mt50(tmp_path, preset, value, preset=preset) for preset, value in last.items()]
    code, out, err = diag("tables", "--name", "table", *made, *HERE, "--json", "--out", "o")
    assert (code, err) == (0, "")
    assert [row["table"] for row in json.loads(out)["numbers"]] == [
        *("2", "B.2", "D.1", "D.2", "D.3", "D.6", "D.10", "D.11", "D.8", "D.9")
    ]
    cube = Path("o/table-d1.md").read_text()
    assert cells(cube, "**ours: + LN-c + FG-c (")[1:] == [NOTHING, "✓", "70.0", "70.0"]
    assert "ours: TOPPO" not in cube
    assert "- ours: PopArt without FG-c, worst k difference on MT50 v2: +10.00 pp" in cube
    assert "- ours: PopArt with FG-c, final difference on MT50 v2: +2.00 pp" in cube
    rows = table("o/table-d1.csv")
    assert float(ours(rows, method="PopArt with FG-c", metric="worst_k_difference")["value"]) == pytest.approx(2)
    sides = Path("o/table-d2.md").read_text()
    assert cells(sides, "**ours: TOPPO")[1:] == ["pcgrad", "fairgrad", "80.0", "80.0", "80.0"]
    assert "ours: + LN-c (" not in sides  # PopArt is on in Table D.2
    assert cells(Path("o/table-2.md").read_text(), "**ours: TOPPO")[4:] == ["80.0"] * 6
    assert cells(Path("o/table-d6.md").read_text(), "shelf-place-v3")[-5:] == ["50.0", "60.0", "70.0", "72.0", "80.0"]


def test_steps_to_match_on_v1(diag, tmp_path):  # noqa: F811
    """Points at 20M, 40M and so on: each of Table 3's baselines is reached twice, except the highest ones."""
    rates = flat(*(0.0, 0.35, 0.25, 0.5, 0.7, 0.8), k=50)
    run = evaluate(tmp_path / "v1", rates, tasks=MT50, every=20_000_000, benchmark="MT50", reward="v1")
    assert diag("tables", "--name", "table", run, *HERE, "--out", "o")[0] == 0
    markdown = Path("o/table-3.md").read_text()
    steps = {name: cells(markdown, name)[3:6] for name in ("PaCo", "MT-MH-SAC", "PCGrad-SAC", "MOORE", "TOPPO")}
    assert steps == {
        "PaCo": ["~2.1M (2%)", "20M", "20M"],
        "MT-MH-SAC": ["~3.4M (3%)", "20M", "60M"],
        "PCGrad-SAC": ["~5.5M (5%)", "60M", "60M"],
        "MOORE": ["~13M (13%)", "80M", "80M"],
        "TOPPO": [NOTHING] * 3,
    }
    assert {path.name for path in Path("o").glob("*.md")} == {
        f"table-{n}.md" for n in ("3", "b2", "d3", "d4", "d7", "d8", "d9")
    }


def test_an_iqm_has_its_bootstrap_interval(diag, tmp_path):  # noqa: F811
    """Of 9 seeds at 0.1 .. 0.9, the IQM is that of the five in the middle, and the interval holds it."""
    made = [mt50(tmp_path, f"s{s}", s / 10, reward="v1", seed=s) for s in range(1, 10)]
    assert diag("tables", "--name", "table", *made, *HERE, "--table", "3", "--out", "o")[0] == 0
    row = ours(table("o/table-3.csv"), metric="iqm")
    assert float(row["value"]) == pytest.approx(50)
    assert float(row["std"]) == pytest.approx(10 * np.sqrt(7.5))
    assert 10 < float(row["low"]) < 50 < float(row["high"]) < 90


def test_each_table_takes_its_own_rewards_and_d3_both(diag, tmp_path):  # noqa: F811
    made = [mt50(tmp_path, "v1", 0.6, reward="v1"), mt50(tmp_path, "v2", 0.8)]
    code, out, _ = diag("tables", "--name", "table", *made, *HERE, "--json", "--out", "o")
    answer = json.loads(out)
    assert code == 0
    assert [row["table"] for row in answer["numbers"]] == [
        *("2", "3", "B.2", "D.2", "D.3", "D.4", "D.6", "D.7", "D.10", "D.11", "D.8", "D.9")
    ]
    for number, value in (("3", "60.0"), ("d7", "60.0"), ("2", "80.0"), ("d6", "80.0")):
        assert {float(row["value"]) for row in table(f"o/table-{number}.csv") if row["whose"] == "ours"} >= {
            float(value)
        }
        assert f"{140 - float(value):.1f} " not in "".join(
            line for line in Path(f"o/table-{number}.md").read_text().splitlines() if "ours" in line
        )
    line = cells(Path("o/table-d3.md").read_text(), "**ours: TOPPO")
    assert line[0] == "**ours: TOPPO (MT50 v1: n = 1, 100M steps; MT50 v2: n = 1, 100M steps)**"
    assert line[1:] == ["60.0", "80.0", "+20.00"]


def test_both_benchmarks_meet_in_table_2(diag, tmp_path):  # noqa: F811
    made = [evaluate(tmp_path / "ten", ramp(0.5)), mt50(tmp_path, "fifty", 0.8)]
    assert diag("tables", "--name", "table", *made, *HERE, "--out", "o")[0] == 0
    assert cells(Path("o/table-2.md").read_text(), "**ours")[1:] == ["685K", "50.0", "717K", *["80.0"] * 6]
    lines = [line for line in Path("o/table-d11.md").read_text().splitlines() if line.startswith("| **ours")]
    assert len(lines) == 2
    assert cells(Path("o/table-d5.md").read_text(), "Task")[-1] == "ours: TOPPO (n = 1, 2M steps)"
    assert cells(Path("o/table-d6.md").read_text(), "Task")[-1] == "ours: TOPPO (n = 1, 100M steps)"
    assert "51 evaluations of 100M steps stand 2M apart" in Path("o/table-d11.md").read_text()
    assert cells(Path("o/table-b2.md").read_text(), "**ours: TOPPO")[1:3] == ["685K", "717K"]


def test_unequal_lengths_and_budgets_are_said(diag, tmp_path):  # noqa: F811
    made = [
        evaluate(tmp_path / "long", ramp(0.9), seed=1),
        evaluate(tmp_path / "short", ramp(0.4, s=3), seed=2, planned=5),
        evaluate(tmp_path / "vanilla", ramp(0.3), preset="vanilla"),
    ]
    _, out, _ = diag("tables", "--name", "table", *made, *HERE, "--json", "--out", "o", "--table", "2")
    notes = json.loads(out)["notes"]
    assert "short (TOPPO, seed 2) is incomplete: evaluated up to 800,000 of its 2,000,000 steps" in notes
    assert any(note.startswith("long (TOPPO, seed 1) is cut to the 3 of its 6 evaluations") for note in notes)
    assert "our runs have different budgets; look at their steps before you compare rows" in notes
    assert "ours: Vanilla MT-PPO on MT10 v2: 1 seed (0), so no std; the paper has 10 seeds; " in "; ".join(notes)
    markdown = Path("o/table-2.md").read_text()
    assert all(note in markdown for note in notes)
    assert cells(markdown, "**ours: TOPPO (n = 2, 0.8M steps)")[2] == "38.0 ± 2.8"


def test_no_difference_of_runs_at_different_steps(diag, tmp_path):  # noqa: F811
    half = evaluate(
        tmp_path / "half", ramp(0.6, 3, 50), tasks=MT50, every=20_000_000, benchmark="MT50", preset="ln-popart"
    )
    _, out, _ = diag(
        "tables", "--name", "table", mt50(tmp_path, "ln", 0.5, preset="ln"), half, *HERE, "--table", "d1", "--json"
    )
    notes = json.loads(out)["notes"]
    assert any(
        note.startswith("no final_difference of PopArt without FG-c: + LN-c (v2) ends at 100,000,000") for note in notes
    )
    assert not [row for row in table("figures/out/table-d1.csv") if row["whose"] == "ours" and row["unit"] == "pp"]


def test_latex_is_well_formed(diag, toppo):  # noqa: F811
    diag("tables", "--name", "table", *toppo, *HERE, "--out", "o")
    for path in Path("o").glob("*.tex"):
        text = path.read_text()
        width = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        for line in text.splitlines():
            if line.endswith(r"\\"):
                spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                assert len(re.findall(r"(?<!\\)&", line)) + sum(spans) == width - 1, line
        body = re.sub(r"\\[&%$#_{}]", "", text.split("\n", 1)[1])
        assert body.count("{") == body.count("}")
        assert not re.search(r"[%#~_]", body)
        assert body.isascii()
    assert latex("50% of a_b ± [1]\\") == r"50\% of a\_b $\pm$ {[}1]\textbackslash{}"


def test_every_published_line_is_in_the_tables_shape(diag, tmp_path):  # noqa: F811
    """Each layout's columns show every number of its CSV but the differences printed under it."""
    made = [mt50(tmp_path, "v1", 0.6, reward="v1"), mt50(tmp_path, "v2", 0.8), evaluate(tmp_path / "ten", ramp(0.5))]
    assert diag("tables", "--name", "table", *made, *HERE, "--out", "o")[0] == 0
    made_of = {path.stem.removeprefix("table-"): path.read_text() for path in Path("o").glob("*.md")}
    published = read_published(PUBLISHED)
    for form in TABLE_FORMS:
        if form.number == "D.1":
            continue
        text = made_of[form.number.lower().replace(".", "")]
        for row in published.of(form.number):
            if row.value is not None and not row.metric.endswith("_difference"):
                line = " ".join(cells(text, row.task or row.method))
                if form.by_source:
                    assert f"{row.value:,.0f}K" in " ".join(cells(text, f"{row.method} ({row.source})")), row
                    continue
                if form.by_benchmark:
                    line = next(t for t in text.splitlines() if t.startswith(f"| {row.method} | {row.benchmark}"))
                shown = {"thousand": "{:.0f}K", "pp": "{:+.2f}", "M env steps": "{:g}", "% of budget": "{:g}%"}
                wanted = shown.get(row.unit, "{:.1f}").format(row.value)
                assert wanted in line, row
                assert row.std is None or f"{row.value:.1f} ± {row.std:.1f}" in line, row


def test_compare_by_hand(diag, toppo):  # noqa: F811
    code, out, err = diag("compare", *toppo, "--name", "compare", "--to", "paper", *HERE, "--json", "--out", "o")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    rows = {(r["table"], r["metric"], r["task"]): r for r in answer["numbers"]}
    assert len(rows) == 2 + 10 + 4 + 5  # Tables 2, D.5, D.10, D.11
    count = rows["2", "parameters", ""]
    assert (count["paper"], count["unit"], round(count["ours"])) == (685, "thousand", 685)
    final = rows["2", "final", ""]
    assert (final["paper"], final["paper_std"], final["paper_n"], final["n"]) == (97.2, 3.1, 10, 2)
    assert final["ours"] == pytest.approx(65)
    assert final["difference"] == pytest.approx(-32.2)
    assert final["in_std"] == pytest.approx(-32.2 / 3.1)
    assert (final["env_steps"], final["paper_env_steps"], final["budget_percent"]) == (2_000_000, 20_000_000, 10.0)
    reach = rows["D.5", "final", "reach-v3"]
    assert (reach["paper_std"], reach["in_std"]) == (0.0, "")  # no std to count in
    assert rows["D.11", "best_step_median", ""]["difference"] == pytest.approx(1.8 - 12.6)
    with Path("o/compare.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(row["ours"]) for row in written] == [row["ours"] for row in answer["numbers"]]
    assert answer["files"] == ["o/compare.csv"]


@pytest.mark.parametrize("spec", ["cagrad", "cagrad:c=0.5"])
def test_compare_finds_a_row_whatever_defaults_its_name_leaves_out(diag, tmp_path, spec):  # noqa: F811
    """The CAGrad row of Table D.2. The paper's name has c = 0.5, which is our default."""
    run = mt50(tmp_path, "cagrad", 0.9, preset="ln-popart", actor_combiner=spec, critic_combiner=spec)
    code, out, err = diag("compare", run, *HERE, "--json")
    assert (code, err) == (0, "")
    rows = {(r["table"], r["metric"]): r for r in json.loads(out)["numbers"]}
    assert rows["D.2", "final"]["paper"] == 89.3
    assert rows["D.2", "best"]["paper"] == 90.7
    other = mt50(tmp_path, "other", 0.9, preset="ln-popart", actor_combiner="cagrad:c=0.4", critic_combiner=spec)
    assert diag("compare", other, *HERE)[0] == 1  # c = 0.4 is another method


def test_a_methods_name_is_canonical():
    assert canonical_method("LN-c + PopArt (a: cagrad c=0.5, c: cagrad c=0.4)") == (
        "LN-c + PopArt (a: cagrad, c: cagrad c=0.4)"
    )
    for name in ("TOPPO", "+ LN-c + PopArt", "ARS-LN (1024)", "X (a: nosuch)"):
        assert canonical_method(name) == name
    for spec in ("cagrad:c=0.5", "cagrad:c=0.4", "pcgrad", "taskforce:agents=ma,every=2"):
        config = {
            "layernorm": "none",
            "popart": "welford",
            "actor_combiner": spec,
            "critic_combiner": "mean",
        }
        assert canonical_method(method_name(config)) == method_name(config)


def test_compare_prints_what_falls_short(diag, toppo, tmp_path):  # noqa: F811
    other = evaluate(tmp_path / "other", ramp(0.5), layernorm="none")
    code, out, _ = diag("compare", *toppo, other, *HERE)
    assert code == 0
    assert re.search(r"^2 +TOPPO +MT10 +v2 +final .* -32\.2 ", out, re.MULTILINE)
    assert "2M of the paper's 20M steps (10%)" in out
    assert "note: the paper has no number of PopArt + FG-c (a: pcgrad) on MT10" in out


def test_runs_that_the_paper_does_not_have_are_said_to_be_without_a_number(diag, toppo, tmp_path):  # noqa: F811
    v1 = evaluate(tmp_path / "v1", ramp(0.4), reward="v1")
    for command in ("compare", "curves"):
        _, out, _ = diag(command, *toppo, v1, *HERE)
        assert "ours: TOPPO on MT10 v1: 1 seed (0), so no std; 2M steps; the paper has no such runs\n" in out
        assert out.count("2M of the paper's 20M steps (10%)") == 1
        assert ("the paper has no number of TOPPO on MT10 v1" in out) == (command == "compare")
    assert "more parameters than any of these runs; no number of parameters is published for SMT, PaCo\n" in out


def test_compare_counts_both_rewards_and_the_steps_to_match(diag, tmp_path):  # noqa: F811
    made = [mt50(tmp_path, "v1", 0.8, reward="v1"), mt50(tmp_path, "v2", 0.9)]
    _, out, _ = diag("compare", *made, *HERE, "--json")
    rows = json.loads(out)["numbers"]
    match = next(r for r in rows if r["metric"] == "step_to_match" and r["method"] == "MOORE")
    assert (match["ours"], match["paper"], match["difference"]) == (80.0, 13.0, 67.0)
    gap = next(r for r in rows if r["metric"] == "iqm_gap")
    assert (gap["ours"], gap["paper"]) == (pytest.approx(10), 11.49)


def test_archives_and_a_manifest(diag, tmp_path):  # noqa: F811
    """Made and checked from archives by a manifest, as figures/paper.toml does."""
    data = tmp_path / "paper" / "data"
    data.mkdir(parents=True)
    path = evaluate(tmp_path / "run", ramp(0.9))
    export(runs.record(path), data / "toppo.h5")
    shutil.copytree(PUBLISHED, tmp_path / "paper" / "published")
    manifest = tmp_path / "paper" / "paper.toml"
    manifest.write_text(
        """
        [figures.table]
        command = "tables"
        runs = ["data/toppo.h5"]
        table = ["2", "d5"]
        published = "published"
        [figures.compare]
        command = "compare"
        runs = ["data/toppo.h5"]
        published = "published"
        """
    )
    code, _, err = diag("figures", manifest)
    assert (code, err) == (0, "")
    out = manifest.parent / "out"
    assert {f"table-{t}.{kind}" for t in ("2", "d5") for kind in ("csv", "md", "tex")} <= {
        p.name for p in out.iterdir()
    }
    page = (out / "index.html").read_text()
    assert "toppo.h5 (SHA-256" in page
    assert f"toppo-diag tables {data}/toppo.h5 --table 2,d5 --published {data.parent}/published" in page
    assert "the paper has 10 seeds" in page
    assert diag("figures", manifest, "--check")[0] == 0
    (out / "table-2.md").unlink()
    rows = (out / "table-d5.csv").read_text()
    (out / "table-d5.csv").write_text(
        rows.replace("ours,TOPPO,MT10,v2,final,,reach-v3,90", "ours,TOPPO,MT10,v2,final,,reach-v3,91")
    )
    code, _, err = diag("figures", manifest, "--check")
    assert code == 1
    assert "table-2.md is not there; make it first" in err
    assert "table-d5.csv: line " in err
    manifest.write_text('[figures.table]\ncommand = "tables"\ndumps = ["x"]\n')
    code, _, err = diag("figures", manifest)
    assert (code, "tables has no option 'dumps'; it has runs, table, published" in err) == (2, True)
    manifest.write_text('[figures.table]\ncommand = "tables"\n')
    code, _, err = diag("figures", manifest)
    assert (code, "names no runs; give runs = [...]" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("tables", "V1", "FIFTY", "--table", "d5"),
            2,
            "--table d5: is about MT10 under v2 rewards, but the runs are on MT10 under v1 and MT50 under v2",
        ),
        (("tables", "RUN", "--table", "d12"), 2, "--table d12: no such table; give some of 2, 3, b2, d1, d2"),
        (("tables", "FIFTY", "--table", "D.1"), 2, "--table d1: none of these runs belongs in it"),
        (("tables", "FEW"), 2, "FEW is a run on reach-v3,push-v3, but the paper's tables are about MT10 and MT50"),
        (("tables", "nowhere"), 2, "nowhere: no such file or directory; give a run directory"),
        (("tables", "EMPTY"), 1, "EMPTY: has no evaluations yet"),
        (("tables", "RUN", "TWIN"), 2, "RUN and TWIN are both seed 0 of TOPPO on MT10; leave one out"),
        (("tables", "RUN", "--published", "no"), 2, "--published no: no such directory"),
        (("tables", "RUN", "--out", "FILE"), 1, "cannot write FILE"),
        (("compare", "RUN", "--to", "papers"), 2, "--to papers: give paper"),
        (
            ("compare", "FEW"),
            1,
            "the paper has no number of TOPPO on reach-v3,push-v3 v2; give runs",
        ),
        (("compare", "RUN", "TWIN"), 2, "are both seed 0 of TOPPO"),
        (("compare", "OLD"), 1, "OLD: is an archive without the evaluations of its run"),
    ],
)
def test_wrong_input_is_one_line(diag, tmp_path, archive, arguments, code, message):  # noqa: F811
    few = ("reach-v3", "push-v3")
    makers = {
        "RUN": lambda path: evaluate(path, ramp(0.5)),
        "TWIN": lambda path: evaluate(path, ramp(0.5)),
        "V1": lambda path: evaluate(path, ramp(0.5), reward="v1"),
        "FEW": lambda path: evaluate(path, ramp(0.5, k=2), tasks=few, benchmark=",".join(few)),
        "FIFTY": lambda path: mt50(path.parent, path.name, 0.5),
        "EMPTY": lambda path: (evaluate(path, ramp(0.5)) / "evaluation.jsonl").write_text(""),
        "FILE": lambda path: path.write_text(""),
        "OLD": lambda path: shutil.copy(archive, path),
    }
    for name in arguments:
        if name in makers:
            makers[name](tmp_path / name)
    found, _, err = diag(*arguments, *(() if "--published" in arguments else HERE))
    assert (found, message in err) == (code, True), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_compare_with_another_run(diag, tmp_path):  # noqa: F811
    a = evaluate(tmp_path / "a", ramp(0.8), seed=1)
    b = evaluate(tmp_path / "b", ramp(0.6), seed=1, preset="vanilla")
    code, out, err = diag("compare", a, "--to", b, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["files"] == ["figures/out/compare-a-to-b.csv"]
    rows = {(r["metric"], r["k"], r["task"]): r for r in answer["numbers"]}
    final = rows["final", "", ""]
    assert (final["method"], final["to"]) == ("TOPPO", "Vanilla MT-PPO")
    assert final["ours"] - final["other"] == pytest.approx(final["difference"]) == pytest.approx(20)
    assert {task for _, _, task in rows} > {"reach-v3"}
    fifty = mt50(tmp_path, "fifty", 0.5)
    for other, message in ((fifty, "give runs of one benchmark"), ("nosuch", "--to nosuch: give paper, or a run")):
        code, _, err = diag("compare", a, "--to", other)
        assert (code, err.count("\n"), message in err) == (2, 1, True), err

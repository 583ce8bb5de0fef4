"""Runs read from their directories and archives: labels, groups, common steps, and what is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.diag import evaluated, runs
from tests.diag.evaluated import evaluate, flat
from toppo.dump import export
from toppo_diag.analysis.runs import RUNGS, align, align_each, by_label, method_name, one_setting
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.reading.runs import read_run, read_runs

SUCCESS = np.linspace(0, 1, 30).reshape(3, 10)


def test_what_the_trainer_writes_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The directory and its lines by the trainer itself, so that the two formats cannot drift apart."""
    pytest.importorskip("torch")
    from toppo.training.config import resolve
    from toppo.training.envs.interface import Evaluation
    from toppo.training.run.directory import Run
    from toppo.training.run.trainer import evaluation_line

    monkeypatch.chdir(tmp_path)
    run = Run.create("one", resolve({"seed": 3, "env_steps": 800_000}, preset="ln-fg"))
    episodes = np.random.default_rng(0).uniform(size=(3, 10, 50)) < 0.3
    for s, success in enumerate(episodes):
        evaluation = Evaluation(success=success, returns=np.zeros(success.shape))
        run.append(run.evaluation_log, evaluation_line(evaluation, evaluated.MT10, 4 * s, 400_000 * s))
    read = read_run("dumps/one")
    assert (read.name, read.benchmark, read.reward, read.seed) == ("one", "MT10", "v2", 3)
    assert (read.label, read.tasks, read.env_steps_planned, read.complete) == (RUNGS[3], evaluated.MT10, 800_000, True)
    np.testing.assert_array_equal(read.env_steps, [0, 400_000, 800_000])
    np.testing.assert_array_equal(read.success, episodes.mean(axis=2))


def test_an_archive_says_what_its_directory_says(tmp_path: Path):
    path = evaluate(tmp_path / "run", SUCCESS)
    runs.record(path)
    archive = export(path, tmp_path / "kept.h5")
    one, other = read_run(str(path)), read_run(str(archive))
    assert (other.name, other.config, other.label) == ("kept", one.config, "TOPPO")
    np.testing.assert_array_equal(other.success, one.success)
    shutil.rmtree(path)
    np.testing.assert_array_equal(read_run(str(archive)).env_steps, [0, 400_000, 800_000])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "TOPPO"),
        ({"actor_combiner": "mean"}, "+ LN-c + PopArt + FG-c"),
        ({"actor_combiner": "mean", "popart": "off"}, "+ LN-c + FG-c"),
        ({"actor_combiner": "mean", "critic_combiner": "mean"}, "+ LN-c + PopArt"),
        ({"actor_combiner": "mean", "critic_combiner": "mean", "popart": "off"}, "+ LN-c"),
        (
            {"actor_combiner": "mean", "critic_combiner": "mean", "popart": "off", "layernorm": "none"},
            "Vanilla MT-PPO",
        ),
        ({"actor_combiner": "fairgrad:alpha=2"}, "LN-c + PopArt + FG-c (a: fairgrad alpha=2)"),
        ({"actor_combiner": "fairgrad:alpha=2", "layernorm": "none"}, "PopArt + FG-c (a: fairgrad alpha=2)"),
        ({"critic_combiner": "fairgrad:alpha=2"}, "LN-c + PopArt (a: pcgrad, c: fairgrad alpha=2)"),
        ({"actor_combiner": "pcgrad:order=row,reduction=sum"}, "LN-c + PopArt + FG-c (a: pcgrad reduction=sum)"),
        ({"critic_combiner": "pcgrad:order=row,reduction=mean"}, "LN-c + PopArt (a: pcgrad, c: pcgrad)"),
        ({"layernorm": "both", "popart": "ema"}, "LN-ac + PopArt-ema + FG-c (a: pcgrad)"),
    ],
)
def test_method_names(changes: dict[str, str], name: str):
    toppo = {
        "layernorm": "critic",
        "popart": "welford",
        "actor_combiner": "pcgrad:order=row,reduction=mean",
        "critic_combiner": "fairgrad:alpha=1",
    }
    assert method_name(toppo | changes) == name


def test_labels_come_in_the_papers_order_and_seeds_in_theirs(tmp_path: Path):
    made = [
        evaluate(tmp_path / "a", SUCCESS, seed=2),
        evaluate(tmp_path / "b", SUCCESS, actor_combiner="fairgrad"),
        evaluate(tmp_path / "c", SUCCESS, preset="vanilla"),
        evaluate(tmp_path / "d", SUCCESS, seed=1),
    ]
    groups = by_label(read_runs([str(path) for path in made]))
    assert list(groups) == ["Vanilla MT-PPO", "TOPPO", "LN-c + PopArt + FG-c (a: fairgrad alpha=2)"]
    assert [run.name for run in groups["TOPPO"]] == ["d", "a"]


def test_other_settings_are_another_label(tmp_path: Path):
    made = [
        evaluate(tmp_path / "a", SUCCESS),
        evaluate(tmp_path / "b", SUCCESS, learning_rate=1e-3),
        evaluate(tmp_path / "c", SUCCESS, seed=1, workers=2, dump_every=3),
    ]
    read = read_runs([str(path) for path in made])
    labels = ["TOPPO [learning_rate 0.0003]", "TOPPO [learning_rate 0.001]", "TOPPO [learning_rate 0.0003]"]
    assert [run.label for run in read] == labels
    assert {run.method for run in read} == {"TOPPO"}
    assert read_runs([str(made[1])])[0].label == "TOPPO"


def test_aligned_runs_are_cut_to_what_all_have_and_say_so(tmp_path: Path):
    long, short = np.arange(50.0).reshape(5, 10) / 50, np.arange(20.0).reshape(2, 10) / 40
    read = read_runs(
        [
            str(evaluate(tmp_path / "long", long, seed=1)),
            str(evaluate(tmp_path / "short", short, every=800_000, planned=2)),
        ]
    )
    both = align(read)
    np.testing.assert_array_equal(both.env_steps, [0, 800_000])
    np.testing.assert_array_equal(both.success, np.stack([short, long[[0, 2]]], axis=1))
    np.testing.assert_allclose(both.curves, both.success.mean(axis=2))
    assert (both.seeds, both.label, both.last_step) == ((0, 1), "TOPPO", 800_000)
    incomplete, cut = both.notes
    assert incomplete == "short (TOPPO, seed 0) is incomplete: evaluated up to 800,000 of its 1,600,000 steps"
    assert cut == (
        "long (TOPPO, seed 1) is cut to the 2 of its 5 evaluations that the other seeds have too, the last at 800,000 "
        "of 1,600,000 steps"
    )
    assert align(read[:1]).notes == ()


def test_every_label_of_every_setting_by_itself(tmp_path: Path):
    read = read_runs(
        [
            str(evaluate(tmp_path / "a", SUCCESS)),
            str(evaluate(tmp_path / "b", SUCCESS, reward="v1")),
            str(evaluate(tmp_path / "c", SUCCESS, preset="vanilla")),
        ]
    )
    assert [(group.label, group.setting) for group in align_each(read)] == [
        ("Vanilla MT-PPO", ("MT10", "v2")),
        ("TOPPO", ("MT10", "v2")),
        ("TOPPO", ("MT10", "v1")),
    ]
    assert one_setting([read[0], read[2]]) == ("MT10", "v2")
    with pytest.raises(UsageError, match=r"a is a run on MT10 under v2 rewards, and .*b on MT10 under v1; give runs"):
        one_setting(read)
    with pytest.raises(UsageError, match="give runs of one benchmark and reward"):
        align(read)


def test_half_a_line_of_a_live_run_is_not_there(tmp_path: Path):
    path = evaluate(tmp_path / "live", SUCCESS, planned=9)
    with (path / "evaluation.jsonl").open("a") as file:
        file.write('{"collect": 12, "env_st')
    assert read_run(str(path)).env_steps.tolist() == [0, 400_000, 800_000]


def _wrong(path: Path, what: str) -> str:
    """A run with one thing wrong; where it is."""
    evaluate(path, SUCCESS)
    lines = (path / "evaluation.jsonl").read_text().splitlines(keepends=True)
    config = path / "config.toml"
    match what:
        case "nowhere":
            return str(path.with_name("nowhere"))
        case "no config":
            config.unlink()
        case "none":
            (path / "evaluation.jsonl").unlink()
        case "empty":
            (path / "evaluation.jsonl").write_text("")
        case "damaged":
            (path / "evaluation.jsonl").write_text(lines[0] + lines[1][:40] + "\n" + lines[2])
        case "backwards":
            (path / "evaluation.jsonl").write_text(lines[1] + lines[0])
        case "out of range":
            (path / "evaluation.jsonl").write_text(lines[0].replace('"success": 0.0,', '"success": 1.5,'))
        case "other tasks":
            (path / "evaluation.jsonl").write_text(lines[0] + lines[1].replace("reach-v3", "grasp-v3"))
        case "no text":
            (path / "evaluation.jsonl").write_bytes(b"\xff\xfe\n")
        case "no toml":
            config.write_text("benchmark = [")
        case "lacks":
            config.write_text(config.read_text().replace("popart = ", "popup = "))
        case "combiner":
            config.write_text(config.read_text().replace("fairgrad:alpha=1", "fairgard"))
        case "archive":
            runs.record(path / "bare")
            return str(export(path / "bare", path / "bare.h5"))
        case "not an archive":
            return str(config)
    return str(path)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("nowhere", UsageError, "no such file or directory; give a run directory"),
        ("no config", UsageError, "is not a run: it has no config.toml"),
        ("none", DiagnosticError, "has no evaluations yet; wait for its first one"),
        ("empty", DiagnosticError, "has no evaluations yet"),
        ("damaged", DiagnosticError, "evaluation.jsonl, line 2 is damaged: restore the log from a copy"),
        ("backwards", DiagnosticError, "evaluation.jsonl, line 2 is damaged"),
        ("out of range", DiagnosticError, "evaluation.jsonl, line 1 is damaged"),
        ("other tasks", DiagnosticError, "evaluation.jsonl, line 2 is damaged"),
        ("no text", DiagnosticError, "evaluation.jsonl is damaged, it is no text"),
        ("no toml", DiagnosticError, "config.toml is damaged"),
        ("lacks", DiagnosticError, "config.toml is damaged, it lacks popart; restore it"),
        ("combiner", DiagnosticError, "config.toml: unknown combiner 'fairgard': did you mean 'fairgrad'?"),
        ("archive", DiagnosticError, "is an archive without the evaluations of its run; export it again"),
        ("not an archive", DiagnosticError, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_run_is_one_line(tmp_path: Path, what: str, error: type[Exception], message: str):
    path = _wrong(tmp_path / "run", what)
    with pytest.raises(error) as caught:
        read_runs([path])
    text = str(caught.value)
    assert type(caught.value) is error
    assert message in text
    assert text.startswith(path)
    assert "\n" not in text


def test_the_same_run_twice(tmp_path: Path):
    """Where it ran, for how long and what it recorded does not make it another run."""
    a = str(evaluate(tmp_path / "a", SUCCESS))
    b = str(evaluate(tmp_path / "b", SUCCESS[:2], workers=7, dump_every=1, gram_every=8, device="cpu"))
    with pytest.raises(UsageError) as caught:
        read_runs([a, b])
    assert str(caught.value) == f"{a} and {b} are both seed 0 of TOPPO on MT10; leave one out"
    with pytest.raises(UsageError, match="are both seed 0"):
        read_runs([a, a])


def test_runs_never_evaluated_at_the_same_step(tmp_path: Path):
    a = evaluate(tmp_path / "a", flat(0, 0.5))
    b = evaluate(tmp_path / "b", flat(0, 0.5), seed=1, every=600_000)
    for path in (a, b):
        log = path / "evaluation.jsonl"
        log.write_text(log.read_text().split("\n")[1] + "\n")
    with pytest.raises(DiagnosticError, match="have no evaluation at the same step"):
        align(read_runs([str(a), str(b)]))

"""It learns: two easy tasks, minutes, real Meta-World. Run by `make test-slow`."""

import json

import pytest

from tests.training.run.test_runs import toppo


@pytest.mark.slow
def test_two_easy_tasks_are_learnt_in_minutes(tmp_path):
    """The paper's settings: after 100,000 steps a task both succeed more often than not."""
    done = toppo(
        tmp_path,
        *("train", "--name", "easy", "--benchmark", "reach-v3,drawer-close-v3"),
        *("--env-steps", "200000", "--eval-every-epochs", "5", "--eval-episodes", "20"),
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "dumps/easy/progress.jsonl").read_text().splitlines()]
    first, last = lines[0]["tasks"], lines[-1]["tasks"]
    assert first["reach-v3"]["success"] <= 0.3
    assert last["reach-v3"]["success"] >= 0.5
    assert last["drawer-close-v3"]["success"] >= 0.9
    evaluation = json.loads((tmp_path / "dumps/easy/evaluation.jsonl").read_text().splitlines()[-1])
    assert evaluation["mean_success"] >= 0.5

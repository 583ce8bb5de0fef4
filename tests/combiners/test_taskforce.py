"""TaskForce as a combiner: what every combiner must do, rewards, state, learning, wrong input."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.special import softmax

from tests.combiners import test_properties as properties
from tests.combiners.gradients import gram_of, independent
from toppo.combiners import Status, TaskForce, make
from toppo.combiners.taskforce import project
from toppo.combiners.taskforce.observation import gradient_scales

pytest.importorskip("torch")

FAST = "hidden=8,batch=4,buffer=16,lr=0.01"
SPECS = [
    f"taskforce:{FAST}{options}"
    for options in ("", ",r_g=imtl,agents=ct", ",agents=single,every=2", ",agents=ma,loss=raw", ",critics=shared")
]


def problem(seed: int, K: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return gram_of(independent(rng, K, spread=100)), rng.uniform(0.1, 2, K)


def calls(combiner: TaskForce, n: int, first: int = 0) -> np.ndarray:
    return np.stack(
        [combiner.combine(gram, losses=losses).weights for gram, losses in map(problem, range(first, first + n))]
    )


# What every combiner must do


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "check",
    [
        properties.test_a_saved_state_goes_on_exactly,
        properties.test_a_state_that_is_handed_out_is_not_the_combiners_own,
        properties.test_solve_many_is_combine_in_turn,
        properties.test_dead_tasks_do_no_harm,
        properties.test_a_stateful_combiner_refuses_another_number_of_tasks,
    ],
)
def test_it_does_what_every_combiner_must(check, spec: str):
    check(spec)


@pytest.mark.parametrize("spec", [*SPECS, f"taskforce:{FAST},normalise=loss+"])
def test_weights_lie_on_the_simplex(spec: str):
    w = calls(make(spec), 40)
    assert (w > 0).all()
    np.testing.assert_allclose(w.sum(axis=1), 1, rtol=1e-14)
    assert w.std(axis=0).min() > 0  # noise and learning move them
    assert (w.max(axis=1) / w.min(axis=1)).max() <= np.exp(6) * (1 + 1e-12)  # sharpness = 3, actions in [-1, 1]


def test_the_first_weights_are_even_without_noise():
    w = calls(make("taskforce:noise_start=0,noise_end=0"), 1)
    # an actor's last layer starts within 0.003: 64 inputs of about 1, times sharpness 3
    np.testing.assert_allclose(w, 0.2, atol=0.02)


def test_a_normalised_step_divides_by_the_gradients_lengths():
    gram, losses = problem(0)
    w = make("taskforce").combine(gram, losses=losses).weights
    v = make("taskforce:step=normalised").combine(gram, losses=losses).weights
    np.testing.assert_allclose(v, w / np.sqrt(np.diagonal(gram)), rtol=1e-14)


def test_scales_are_those_of_mgdas_code():
    gram, losses = problem(1)
    norms = np.sqrt(np.diagonal(gram))
    for how, expected in (("l2", norms), ("loss", losses), ("loss+", losses * norms), ("none", np.ones(5))):
        np.testing.assert_allclose(gradient_scales(gram, losses, how, "it"), expected, rtol=1e-14)
    gram[1] = gram[:, 1] = 0
    assert gradient_scales(gram, losses, "l2", "it")[1] == 1


def test_the_scale_of_the_losses_and_gradients_does_not_matter_to_the_agents():
    """A factor on a task shifts its log loss, and the reward takes differences of log losses."""
    ours, theirs = make(f"taskforce:{FAST}"), make(f"taskforce:{FAST}")
    for seed in range(3):
        gram, losses = problem(seed)
        c = np.array([1e-3, 1, 10, 1e4, 1])
        one = ours.combine(gram, losses=losses)
        other = theirs.combine(gram * np.outer(c, c), losses=losses * c)
    np.testing.assert_allclose(other.reports["reward_loss"], one.reports["reward_loss"], rtol=1e-10)
    # The agents see log L_t, so the weights and r_G differ. Only r_L is the same.


# Rewards by hand


def rewards_by_hand(spec: str) -> tuple[dict[str, float], float, float]:
    """The reports of the second call, and the two weights of the first."""
    combiner = make(spec)
    J = np.array([[3.0, 0.0], [0.0, 2.0]])
    w = combiner.combine(J @ J.T, losses=np.array([2.0, 8.0])).weights
    out = combiner.combine(J @ J.T, losses=np.array([1.0, 16.0]))
    return dict(out.reports), float(w[0]), float(w[1])


def test_rewards_are_the_equations():
    reports, w1, w2 = rewards_by_hand("taskforce:lambda_l=2,lambda_g=0.5")
    # One log loss falls by log 2, the other rises by it. The unit gradients are orthogonal: ||d||^2 = w_1^2 + w_2^2.
    assert reports["reward_loss"] == pytest.approx(0, abs=1e-15)
    assert reports["reward_gradient"] == pytest.approx(-(w1**2 + w2**2), rel=1e-13)
    assert reports["reward"] == pytest.approx(-0.5 * (w1**2 + w2**2), rel=1e-13)

    reports, w1, w2 = rewards_by_hand("taskforce:r_g=imtl,loss=raw")
    assert reports["reward_loss"] == pytest.approx((1 - 8) / 2)
    assert reports["reward_gradient"] == pytest.approx(-((w1 - w2) ** 2), rel=1e-12)  # <d, u_t> = w_t
    assert reports["reward"] == pytest.approx(reports["reward_loss"] + reports["reward_gradient"])

    reports, _, _ = rewards_by_hand("taskforce:r_g=none,lambda_l=3,loss=raw")
    assert reports == {"reward": pytest.approx(-10.5), "reward_loss": pytest.approx(-3.5), "reward_gradient": 0}


def test_imtl_is_over_the_live_tasks_and_zero_where_projections_are_equal():
    from toppo.combiners.taskforce.reward import imtl_reward, norm_reward

    rng = np.random.default_rng(0)
    J = rng.normal(size=(4, 9)) * 10.0 ** np.arange(4)[:, None]
    w = rng.uniform(size=4)
    d, u = w @ J, J / np.linalg.norm(J, axis=1, keepdims=True)
    expected = -sum((d @ (u[0] - u[t])) ** 2 for t in range(1, 4))  # Equation 23
    assert imtl_reward(J @ J.T, w) == pytest.approx(expected, rel=1e-10)
    assert norm_reward(J @ J.T, w) == pytest.approx(-d @ d, rel=1e-10)
    dead = np.vstack([np.zeros(9), J])
    assert imtl_reward(dead @ dead.T, np.array([0.3, *w])) == pytest.approx(expected, rel=1e-10)
    balanced = make("imtl-g").combine(gram_of(J)).weights
    assert abs(imtl_reward(gram_of(J), balanced)) < 1e-12 * (balanced @ J) @ (balanced @ J)


def test_nothing_is_reported_before_a_transition_ends():
    gram, losses = problem(0)
    assert np.isnan(list(make("taskforce").combine(gram, losses=losses).reports.values())).all()


# State


@pytest.mark.parametrize("options", ["", ",strategy=same", ",observation=raw", ",agents=single,every=3"])
def test_a_state_through_a_file_goes_on_bit_for_bit(options: str, tmp_path):
    def step(combiner: TaskForce, t: int) -> np.ndarray:
        gram, losses = problem(t)
        features = np.random.default_rng(t).normal(size=(5, 7))
        if combiner.observation == "raw":
            combiner.show(features)
        w = combiner.combine(gram, losses=losses).weights
        if combiner.strategy == "same":
            combiner.after(gram, 0.9 * losses)
        return w

    spec = f"taskforce:{FAST}{options}"
    whole = make(spec)
    for t in range(25):  # the buffer of 16 has wrapped
        step(whole, t)
    np.savez(tmp_path / "state.npz", allow_pickle=False, **whole.state())
    again = make(spec)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as stored:
        again.restore(dict(stored))
    for t in range(25, 45):
        np.testing.assert_array_equal(step(again, t), step(whole, t))
    ours, theirs = whole.state(), again.state()
    assert ours.keys() == theirs.keys() == set(whole.state_names)
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


def test_a_state_of_other_agents_is_refused():
    combiner = make(f"taskforce:{FAST}")
    calls(combiner, 3)
    with pytest.raises(ValueError, match=r"are .* numbers, but these options make"):
        make("taskforce").restore(combiner.state())
    state = combiner.state()
    del state["noise"]
    with pytest.raises(ValueError, match="noise is not in both"):
        make(f"taskforce:{FAST}").restore(state)


def test_the_number_of_torchs_threads_changes_nothing():
    import torch

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(calls(make("taskforce:batch=4"), 8))
            assert torch.get_num_threads() == threads
        np.testing.assert_array_equal(*found)
    finally:
        torch.set_num_threads(before)


def test_seeds_differ_and_torchs_own_generator_is_left_alone():
    import torch

    before = torch.get_rng_state()
    one, other = calls(make(f"taskforce:{FAST}"), 6), calls(make(f"taskforce:{FAST},seed=1"), 6)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.abs(one - other).max() > 1e-3


# Learning


@pytest.mark.parametrize("options", ["", ",agents=single", ",agents=ma", ",agents=ct", ",critics=shared"])
def test_agents_learn_what_pays(options: str):
    """With R = -||d||^2 and gradients (3, 0) and (0, 1), MGDA's weights (0.1, 0.9) pay best."""
    combiner = make(f"taskforce:hidden=16,lr=0.01,gamma=0,lambda_l=0,normalise=none,noise_end=0.3{options}")
    gram, losses = np.diag([9.0, 1.0]), np.ones(2)
    for _ in range(300):
        combiner.combine(gram, losses=losses)
    assert combiner._mind is not None
    action = combiner._mind.agents.act(np.array([9, 0, 1, 0, 0.0]))
    weights = softmax(combiner.sharpness * action)
    assert weights[0] < 0.2


def test_updates_come_every_nth_transition():
    combiner = make(f"taskforce:{FAST},every=3")
    changed = []
    for t in range(14):
        before = combiner.state().get("parameters")
        calls(combiner, 1, first=t)
        now = combiner.state()["parameters"]
        changed.append(before is not None and not np.array_equal(before, now))
    # Call t ends transition t. Learning starts at four transitions.
    assert [t for t in range(14) if changed[t]] == [6, 9, 12]


def test_strategy_2_takes_the_same_batch_again():
    gram, losses = problem(0)
    combiner = make(f"taskforce:{FAST},strategy=same")
    with pytest.raises(ValueError, match=r"call combine\(\) first"):
        combiner.after(gram, losses)
    combiner.combine(gram, losses=losses)
    with pytest.raises(ValueError, match="needs after"):
        combiner.combine(gram, losses=losses)
    combiner = make(f"taskforce:{FAST},strategy=same")
    combiner.combine(gram, losses=losses)
    combiner.after(gram, losses / np.e)
    assert combiner.combine(*problem(1)[:1], losses=problem(1)[1]).reports["reward_loss"] == pytest.approx(1)
    with pytest.raises(ValueError, match="strategy=same, not strategy=next"):
        make("taskforce").after(gram, losses)


def test_raw_gradients_are_shown_projected():
    rng = np.random.default_rng(0)
    J = rng.normal(size=(5, 4000))
    short = project(J, 2048)
    assert short.shape == (5, 2048)
    np.testing.assert_array_equal(project(J, 2048), short)  # fixed
    # Inner products are good to 1 / sqrt(2048) of the lengths. The bound is 5 deviations.
    lengths = np.linalg.norm(J, axis=1)
    assert (np.abs(short @ short.T - J @ J.T) < 5 / np.sqrt(2048) * np.sqrt(2) * np.outer(lengths, lengths)).all()
    np.testing.assert_array_equal(project(J, 4000), J)
    combiner = make(f"taskforce:{FAST},observation=raw")
    losses = np.ones(5)
    with pytest.raises(ValueError, match=r"needs show\(project"):
        combiner.combine(gram_of(J), losses=losses)
    for _ in range(8):
        combiner.show(short)
        combiner.combine(gram_of(J), losses=losses)
    with pytest.raises(ValueError, match=r"needs show\(project"):  # features are for one call
        combiner.combine(gram_of(J), losses=losses)


# Wrong input


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("taskforce:buffer=8,batch=64", "a buffer of 8 never holds a batch of 64"),
        ("taskforce:every=0", "every must be a positive"),
        ("taskforce:tau=2", "tau must lie above 0 and at most at 1"),
        ("taskforce:gamma=1", r"gamma must lie in \[0, 1\)"),
        ("taskforce:noise_end=-1", "noise_end must be a finite number >= 0"),
        ("taskforce:agents=ma,critics=shared", "critics=shared judge the joint action"),
        ("taskforce:agents=many", "agents is one of single, ma, ct, de"),
    ],
)
def test_wrong_options_are_one_line(spec: str, says: str):
    with pytest.raises(ValueError, match=says):
        make(spec)


@pytest.mark.parametrize(
    ("gram", "losses", "says"),
    [
        (np.eye(1), np.ones(1), "only one: use mean"),
        (np.eye(2), np.array([1.0, 0.0]), "observes log L, but the loss of task 1 is 0: give taskforce:loss=raw"),
        (np.eye(2), np.array([-3.0, 1.0]), "the loss of task 0 is -3"),
        (np.diag([1.0, np.nan]), np.ones(2), "not finite"),
        (np.eye(2), np.array([1.0, np.inf]), "the loss of task 1 is not finite"),
        (np.eye(2), None, "pass losses"),
    ],
)
def test_wrong_input_is_one_line(gram, losses, says: str):
    combiner = make("taskforce")
    with pytest.raises(ValueError, match=says):
        combiner.combine(gram, losses=losses)
    assert combiner.state() == {}


def test_losses_that_are_not_positive_go_with_loss_raw_alone():
    losses = np.array([-1.0, 0.0])
    assert make("taskforce:loss=raw").combine(np.eye(2), losses=losses).weights.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"normalise=loss.* needs positive losses"):
        make("taskforce:loss=raw,normalise=loss").combine(np.eye(2), losses=losses)


def test_all_tasks_dead_is_a_status():
    assert make("taskforce").combine(np.zeros((3, 3)), losses=np.ones(3)).record.status == Status.NO_GRADIENT


@pytest.mark.parametrize(
    ("spec", "n_tasks", "says"),
    [
        ("taskforce", 1, "only one"),
        ("taskforce:strategy=same", 3, "a second look at every batch"),
        ("taskforce:observation=raw", 3, "the gradients themselves"),
    ],
)
def test_a_plain_loop_is_told_at_its_start(spec: str, n_tasks: int, says: str):
    with pytest.raises(ValueError, match=says):
        make(spec).check_use(n_tasks)


def test_a_missing_torch_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "toppo.combiners.taskforce.agents", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"taskforce needs torch: pip install 'toppo\[train\]'"):
        make("taskforce").combine(np.eye(2), losses=np.ones(2))

"""The update phase against a reference written out with plain autograd and torch's own Adam."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from toppo.combiners import make
from toppo.common.errors import ToppoError
from toppo.training.config import PRESETS, TrainConfig, resolve
from toppo.training.envs.interface import Rollout
from toppo.training.gaussian import entropy, log_prob
from toppo.training.learner.losses import normalise_per_task, policy_loss, value_loss
from toppo.training.learner.networks import NetworkShape
from toppo.training.learner.update import BLOCK_ROWS, Learner, MinibatchUpdate, StepError
from toppo.training.run.checkpoint import learner_state, restore_learner
from toppo.training.run.estimate import made_up_rollout

K, E, T = 4, 2, 20
TASKS = ("alpha", "beta", "gamma", "delta")


def small_config(preset: str = "toppo", **options: object) -> TrainConfig:
    values = {"benchmark": ",".join(TASKS), "repeats": 3, "minibatches": 4, "hidden": (16, 16), "seed": 5, **options}
    return resolve(values, preset=preset)


def make_learner(config: TrainConfig) -> Learner:
    return Learner(config, NetworkShape(K, 6, 3, config.hidden), TASKS, torch.device("cpu"))


def make_rollout(seed: int = 0) -> Rollout:
    made_up = made_up_rollout((K, E, T), 6, 3, np.random.default_rng(seed))
    return dataclasses.replace(made_up, rewards=made_up.rewards * np.logspace(-1, 1, K)[:, None, None])


def run(learner: Learner, rollout: Rollout, collect: int = 1) -> list[MinibatchUpdate]:
    updates: list[MinibatchUpdate] = []
    learner.update(learner.prepare(rollout), collect, updates.append)
    return updates


@pytest.mark.parametrize(
    ("n_tasks", "preset", "expected"),
    [(10, "vanilla", 683_645), (10, "toppo", 684_865), (50, "vanilla", 715_805), (50, "toppo", 717_105)],
)
def test_parameter_counts_are_the_papers(n_tasks, preset, expected):
    config = resolve({"benchmark": f"MT{n_tasks}"}, preset=preset)
    learner = Learner(config, NetworkShape(n_tasks, 39, 4, config.hidden), ("",) * n_tasks, torch.device("cpu"))
    assert learner.n_parameters == expected


def reference_step(learner: Learner, rollout: Rollout, samples: torch.Tensor, orders: np.random.Generator) -> dict:
    """One minibatch of Algorithm C.1 in plain torch: K backward passes, fp64 Grams, J'w, joint clip, torch's Adam."""
    config = learner.config
    actor, critic, popart = (copy.deepcopy(m) for m in (learner.actor, learner.critic, learner.popart))
    batch = learner.prepare(rollout)
    targets = learner.targets(batch)
    rows = torch.arange(K)[:, None]
    obs = torch.from_numpy(rollout.obs)[:, :, :-1].flatten(1, 2)[rows, samples]
    actions = torch.from_numpy(rollout.actions).flatten(1, 2)
    old_log_prob = torch.from_numpy(rollout.log_prob).flatten(1)
    advantage = normalise_per_task(targets.advantage[rows, samples]).float()
    log_ratio = log_prob(actor(obs), actor.log_std, actions[rows, samples]) - old_log_prob[rows, samples]
    loss_actor, _ = policy_loss(log_ratio, advantage, config.clip)
    loss_critic, _ = value_loss(
        popart(critic(obs)), targets.value[rows, samples], targets.target[rows, samples], config.clip
    )

    shared = {
        "actor": [p for name, p in actor.named_parameters() if name != "log_std"],
        "critic": list(critic.parameters()),
    }
    scale = {"actor": 1.0, "critic": config.value_coef}
    directions = {}
    for side, losses in (("actor", loss_actor), ("critic", loss_critic)):
        jacobian = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared[side], retain_graph=True)])
                for loss in losses * scale[side]
            ]
        ).double()
        combiner = make(getattr(config, f"{side}_combiner"))
        order = combiner.draw_order(orders, K)
        weights = combiner.combine((jacobian @ jacobian.T).numpy(), losses=losses.detach().numpy(), order=order).weights
        directions[side] = torch.from_numpy(weights) @ jacobian
    norm = torch.cat(list(directions.values())).norm()
    factor = min(1.0, config.max_grad_norm / float(norm))

    mean_loss = (loss_actor - config.entropy_coef * entropy(actor.log_std) + config.value_coef * loss_critic).mean()
    own = [actor.log_std, *popart.parameters()]
    for p, g in zip(own, torch.autograd.grad(mean_loss, own), strict=True):
        p.grad = g * factor
    for side, parameters in shared.items():
        offset = 0
        for p in parameters:
            p.grad = (directions[side][offset : offset + p.numel()] * factor).view_as(p).float()
            offset += p.numel()
    optimizer = torch.optim.Adam(
        [*shared["actor"], *shared["critic"], *own], lr=config.learning_rate, eps=config.adam_eps
    )
    optimizer.step()
    return {"actor": actor, "critic": critic, "popart": popart, "factor": factor, "norm": float(norm)}


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        *((preset, {}) for preset in PRESETS),
        ("toppo", {"layernorm": "both"}),
        ("toppo", {"actor_combiner": "fairgrad", "critic_combiner": "pcgrad"}),
        ("toppo", {"actor_combiner": "cagrad", "critic_combiner": "fairgrad:alpha=2"}),
    ],
)
@pytest.mark.parametrize("block_rows", [30, BLOCK_ROWS], ids=["three tasks at a time", "all tasks at once"])
def test_a_minibatch_is_the_reference_minibatch(preset, options, block_rows, monkeypatch):
    monkeypatch.setattr("toppo.training.learner.update.BLOCK_ROWS", block_rows)
    # Large enough a learning rate to see the step in fp32, and epsilon that Adam's first step is not just a sign.
    learner = make_learner(small_config(preset, learning_rate=1e-2, adam_eps=1e-3, **options))
    rollout = make_rollout()
    samples = torch.stack([torch.randperm(E * T, generator=torch.Generator().manual_seed(i))[:10] for i in range(K)])
    expected = reference_step(learner, rollout, samples, np.random.default_rng(3))
    batch = learner.prepare(rollout)
    update = learner.step(batch, learner.targets(batch), samples, 0, np.random.default_rng(3))
    assert update.clip_factor == pytest.approx(expected["factor"], rel=1e-4)
    for name in ("actor", "critic", "popart"):
        for ours, theirs in zip(getattr(learner, name).parameters(), expected[name].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)  # fp32 slabs against an fp64 sum


@pytest.mark.parametrize("preset", PRESETS)
def test_every_rung_updates_and_stays_within_the_clip(preset):
    learner = make_learner(small_config(preset))
    for update in run(learner, make_rollout()):
        total = 0.0
        for side, s in update.sides.items():
            w = s.combination.weights * learner.gradient_scale[side] * update.clip_factor
            total += w @ s.gram @ w
        assert total <= 1 + 1e-12
        assert update.clip_factor <= 1


def test_fairgrad_pins_the_critic_norm_at_sqrt_k_every_minibatch():
    learner = make_learner(small_config())
    for update in run(learner, make_rollout()):
        s = update.sides["critic"]
        w = s.combination.weights * learner.gradient_scale["critic"]
        assert w @ s.gram @ w == pytest.approx(K, rel=1e-10)
    assert 0 < float(learner.worst_norm_deviation.max()) < 1e-5  # realised by fp32 slabs


def test_the_observer_sees_slabs_of_its_own_minibatch():
    learner = make_learner(small_config())
    checked = []

    def observe(update: MinibatchUpdate) -> None:
        for side, s in update.sides.items():
            slab = learner.slabs[side].rows().double().numpy()
            np.testing.assert_allclose(slab @ slab.T, s.gram, rtol=1e-5, atol=1e-6 * s.gram.diagonal().max())
            checked.append(side)

    learner.update(learner.prepare(make_rollout()), 1, observe)
    assert len(checked) == 2 * 12


def test_an_update_is_a_function_of_state_rollout_and_collect():
    a, b = make_learner(small_config()), make_learner(small_config())
    for learner in (a, b):
        run(learner, make_rollout(1), 1)
        run(learner, make_rollout(2), 2)
    assert torch.equal(a.theta, b.theta)
    c = make_learner(small_config())
    run(c, make_rollout(1), 7)
    assert not torch.equal(a.theta, c.theta)


def test_recompute_uses_the_current_critic_and_keeps_old_log_probs():
    with_it, without = make_learner(small_config()), make_learner(small_config(recompute=False))
    second = run(without, make_rollout())
    first: list[MinibatchUpdate] = []
    batch = with_it.prepare(make_rollout())
    with_it.update(batch, 1, first.append)
    np.testing.assert_array_equal(batch.log_prob, make_rollout().log_prob)
    for i in range(4):  # the first repeat is the same
        np.testing.assert_array_equal(first[i].sides["critic"].gram, second[i].sides["critic"].gram)
    assert not np.array_equal(first[4].sides["critic"].gram, second[4].sides["critic"].gram)


@pytest.mark.parametrize(
    ("field", "message"), [("rewards", "non-finite critic loss of task gamma"), ("actions", "actor loss of task gamma")]
)
def test_non_finite_input_stops_with_task_side_and_step(field, message):
    rollout = make_rollout()
    bad = getattr(rollout, field).copy()
    bad[2, 0, 3] = np.nan
    config = small_config(popart="off", normalise_advantage=False) if field == "rewards" else small_config()
    learner = make_learner(dataclasses.replace(config))
    if field == "rewards":
        message = "non-finite actor loss of task gamma"  # the actor's advantage is poisoned first
    with pytest.raises(
        ToppoError, match=message + r" at collect 3, repeat 1, minibatch 1; the last checkpoint is intact"
    ):
        run(learner, dataclasses.replace(rollout, **{field: bad}), 3)


def test_non_finite_gradient_names_task_and_side():
    learner = make_learner(small_config())
    batch = learner.prepare(make_rollout())
    losses = learner.losses(batch, learner.targets(batch), torch.zeros(K, 5, dtype=torch.long))
    rows = learner.slabs["critic"].rows()
    rows[1, 7] = float("nan")
    learner.slabs["critic"].load(rows)
    with pytest.raises(StepError, match="non-finite critic gradient of task beta"):
        learner.step_from_slabs(losses, 0, np.random.default_rng(0))


def test_non_finite_entropy_is_an_actor_loss():
    learner = make_learner(small_config())

    def poison(update: MinibatchUpdate) -> None:
        if update.index == 4:
            with torch.no_grad():
                learner.actor.log_std[1] = float("inf")

    with pytest.raises(ToppoError, match=r"actor loss of task beta at collect 1, repeat 2, minibatch 2"):
        learner.update(learner.prepare(make_rollout()), 1, poison)


def test_non_finite_parameter_is_found_at_the_end():
    learner = make_learner(small_config())

    def poison(update: MinibatchUpdate) -> None:
        if update.index == 11:
            with torch.no_grad():
                learner.popart.weight[3] = float("nan")

    with pytest.raises(ToppoError, match="non-finite PopArt parameter weight of task delta after collect 1"):
        learner.update(learner.prepare(make_rollout()), 1, poison)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def make_cuda_learner(config: TrainConfig) -> Learner:
    return Learner(config, NetworkShape(K, 6, 3, config.hidden), TASKS, torch.device("cuda"))


@pytest.mark.gpu
@needs_cuda
def test_cuda_gives_the_cpus_update():
    cpu, gpu = make_learner(small_config()), make_cuda_learner(small_config())
    run(cpu, make_rollout())
    run(gpu, make_rollout())
    torch.testing.assert_close(gpu.theta.cpu(), cpu.theta, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.filterwarnings("always::UserWarning")
def test_cuda_minibatch_syncs_once_out_and_once_in():
    """The Grams come to the host, the weights go back: no sync a task."""
    learner = make_cuda_learner(small_config())
    batch = learner.prepare(make_rollout())
    targets = learner.targets(batch, refresh_popart=True)
    samples = torch.zeros(K, 5, dtype=torch.long, device="cuda")
    learner.step(batch, targets, samples, 0, np.random.default_rng(0))  # the first one allocates
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as syncs:
            learner.step(batch, targets, samples, 1, np.random.default_rng(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(syncs) <= 2


@pytest.mark.gpu
@needs_cuda
def test_cuda_state_goes_to_the_host_and_back():
    learner = make_cuda_learner(small_config())
    run(learner, make_rollout(1), 1)
    again = make_cuda_learner(small_config())
    restore_learner(again, learner_state(learner))
    for name, value in learner_state(learner).items():
        np.testing.assert_array_equal(value, learner_state(again)[name])
    run(again, make_rollout(2), 2)


def test_popart_scales_critic_gradients_by_sigma_to_the_minus_two():
    """Equation 2 on a trained learner: the slab of the normalised loss times sigma_i^2 is that of the raw loss."""
    learner = make_learner(small_config(value_clip=False))
    rollout = make_rollout()
    run(learner, rollout)
    batch = learner.prepare(rollout)
    targets = learner.targets(batch)
    samples = torch.arange(10).expand(K, 10)
    with learner.slabs["critic"].attached():
        learner.losses(batch, targets, samples)["loss_critic"].sum().backward()
    normalised = learner.slabs["critic"].rows()

    rows, popart = torch.arange(K)[:, None], learner.popart
    obs = batch.obs[:, :, :-1].flatten(1, 2)[rows, samples]
    with learner.slabs["critic"].attached():
        value = popart.denormalise(popart(learner.critic(obs)))
        target = popart.denormalise(targets.target)[rows, samples]
        (value - target).square().mean(1).sum().backward()
    expected = normalised * popart.sigma[:, None].float() ** 2
    torch.testing.assert_close(
        learner.slabs["critic"].rows(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )

"""The stacked networks against a loop of small ones, observations, noise and the replay buffer."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from toppo.combiners.taskforce.buffer import ReplayBuffer, Transitions
from toppo.combiners.taskforce.noise import SIGMA, THETA, noise_scale, ornstein_uhlenbeck
from toppo.combiners.taskforce.observation import joint_features, joint_gram, local_rows

torch = pytest.importorskip("torch")
agents = pytest.importorskip("toppo.combiners.taskforce.agents")

K, H, B = 4, 8, 16
GAMMA, TAU, LR = 0.95, 0.01, 5e-4
SIZE = K * (K + 1) // 2 + K
ROWS = local_rows(K, SIZE, raw=False)
STAGES = [("single", False), ("ma", False), ("ct", False), ("ct", True), ("de", False), ("de", True)]


def made(stage: str, shared: bool, dtype: torch.dtype = torch.float64) -> agents.Agents:
    settings = agents.Settings(stage, shared, H, LR, TAU, GAMMA)
    return agents.Agents(ROWS, SIZE, settings, np.random.default_rng(0), dtype)


def batch(seed: int) -> Transitions:
    rng = np.random.default_rng(seed)
    o, following = rng.normal(size=(2, B, SIZE))
    a, r = rng.uniform(-1, 1, size=(B, K)), rng.normal(size=B)
    return Transitions(*(x.astype(np.float32) for x in (o, a, r, following)))


class Loop:
    """MADDPG as published: one torch module and one Adam for each network, one agent after another."""

    def __init__(self, stacked: agents.Agents, stage: str, shared: bool) -> None:
        self.stage, self.shared = stage, shared
        p = {name: value.detach() for name, value in stacked.parameters.items()}
        critic_w1 = torch.cat([p["critic_w1"], p["critic_w1_action"]], dim=1)
        critic = {**p, "critic_w1": critic_w1}
        self.actors = [self._network(p, "actor", e) for e in range(len(p["actor_w1"]))]
        self.critics = [self._network(critic, "critic", e) for e in range(len(critic_w1))]
        self.target_actors, self.target_critics = copy.deepcopy((self.actors, self.critics))
        self.adams = [torch.optim.Adam(n.parameters(), lr=LR) for n in (*self.actors, *self.critics)]

    @staticmethod
    def _network(p: dict[str, torch.Tensor], name: str, e: int) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for layer in (1, 2, 3):
            w, b = p[f"{name}_w{layer}"][e], p[f"{name}_b{layer}"][e, 0]
            linear = torch.nn.Linear(*w.shape).double()
            linear.weight.data.copy_(w.T)
            linear.bias.data.copy_(b)
            layers += [linear, torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1], *([torch.nn.Tanh()] if name == "actor" else []))

    def policy(self, joint: torch.Tensor, actors: list[torch.nn.Module]) -> torch.Tensor:
        own = [joint[:, ROWS[e]] if self.stage == "de" else joint for e in range(len(actors))]
        return torch.cat([actor(o) for actor, o in zip(actors, own, strict=True)], dim=1)

    def q(self, critics: list[torch.nn.Module], e: int, joint: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        seen = actions[:, e : e + 1] if self.stage == "ma" else actions
        return critics[0 if self.shared else e](torch.cat([joint, seen], dim=1))[:, 0]

    def learn(self, batch: Transitions, mean: float, deviation: float) -> None:
        o, a, r, following = (
            torch.from_numpy(x).double()
            for x in (batch.observations, batch.actions, batch.rewards, batch.next_observations)
        )
        with torch.no_grad():
            next_actions = self.policy(following, self.target_actors)
        for network in (*self.actors, *self.critics):
            network.zero_grad()
        for e in range(len(self.critics)):
            with torch.no_grad():
                y = (r - mean) / deviation + GAMMA * self.q(self.target_critics, e, following, next_actions)
            (self.q(self.critics, e, o, a) - y).square().mean().backward()
        critic_gradients = [[p.grad.clone() for p in critic.parameters()] for critic in self.critics]
        tried = self.policy(o, self.actors)
        for e in range(len(self.actors)):
            joint_action = a.clone()
            if self.stage == "single":
                joint_action = tried
            else:
                joint_action[:, e] = tried[:, e]
            (-self.q(self.critics, e, o, joint_action).mean()).backward(retain_graph=True)
        for critic, gradients in zip(self.critics, critic_gradients, strict=True):
            for p, gradient in zip(critic.parameters(), gradients, strict=True):
                p.grad = gradient  # the actors' climb leaves the critics alone
        for adam in self.adams:
            adam.step()
        with torch.no_grad():
            pairs = zip((*self.actors, *self.critics), (*self.target_actors, *self.target_critics), strict=True)
            for network, target in pairs:
                for p, t in zip(network.parameters(), target.parameters(), strict=True):
                    t.mul_(1 - TAU).add_(TAU * p)


@pytest.mark.parametrize(("stage", "shared"), STAGES)
def test_the_stack_is_a_loop_of_small_networks(stage, shared):
    stacked = made(stage, shared)
    loop = Loop(stacked, stage, shared)
    start = stacked.state()["parameters"]
    for step in range(5):
        stacked.learn(batch(step), 0.3, 2.0)
        loop.learn(batch(step), 0.3, 2.0)
    joint = torch.from_numpy(batch(9).observations).double()
    for kept, actors, critics in (
        (stacked.parameters, loop.actors, loop.critics),
        (stacked.targets, loop.target_actors, loop.target_critics),
    ):
        expected = Loop.__new__(Loop)
        expected.stage, expected.shared = stage, shared
        actions = expected.policy(joint, actors).detach()
        # Float64 sums in another order. Adam's first steps divide a gradient by its own size, which amplifies this.
        np.testing.assert_allclose(stacked._policy(joint, kept).detach(), actions, rtol=1e-9, atol=1e-11)
        q = agents._tail(stacked._first(joint, actions, kept), kept).detach()[..., 0]
        for e in range(len(critics)):
            np.testing.assert_allclose(q[e], expected.q(critics, e, joint, actions).detach(), rtol=1e-9, atol=1e-11)
    assert np.abs(stacked.state()["parameters"] - start).max() > LR  # it moved


@pytest.mark.parametrize(("stage", "shared"), STAGES)
def test_shapes_and_counts(stage, shared):
    found = made(stage, shared, torch.float32)
    shapes = {name: tuple(p.shape) for name, p in found.parameters.items()}
    actors = 1 if stage == "single" else K
    critics = 1 if stage == "single" or shared else K
    assert shapes["actor_w1"] == (actors, K + 1 if stage == "de" else SIZE, H)
    assert shapes["actor_w3"] == (actors, H, K if stage == "single" else 1)
    assert shapes["critic_w1"] == (critics, SIZE, H)
    assert shapes["critic_w1_action"] == (critics, 1 if stage == "ma" else K, H)
    assert found.act(np.zeros(SIZE)).shape == (K,)


def test_targets_follow_at_tau():
    found = made("de", False)
    start = found.state()
    found.learn(batch(0), 0.0, 1.0)
    end = found.state()
    np.testing.assert_allclose(
        end["targets"], (1 - TAU) * start["targets"] + TAU * end["parameters"], rtol=1e-12, atol=1e-14
    )


def test_each_agent_sees_its_own_row():
    rng = np.random.default_rng(0)
    G = rng.normal(size=(K, K))
    G, losses = G + G.T, rng.normal(size=K)
    joint = joint_gram(G, losses)
    assert joint.shape == (SIZE,)
    np.testing.assert_array_equal(joint[ROWS], np.hstack([G, losses[:, None]]))
    features = rng.normal(size=(K, 7))
    raw = joint_features(features, losses)
    np.testing.assert_array_equal(raw[local_rows(K, len(raw), raw=True)], np.hstack([features, losses[:, None]]))


# Noise


def test_the_noise_is_an_ornstein_uhlenbeck_process():
    rng = np.random.default_rng(0)
    n, k = 20_000, 20
    x, states = np.zeros(k), np.empty((n, k))
    for t in range(n):
        states[t] = x = ornstein_uhlenbeck(x, rng.normal(size=k))
    deviation = SIGMA / np.sqrt(1 - (1 - THETA) ** 2)
    assert deviation == pytest.approx(0.38, abs=0.005)
    # The correlation time is about 12, so the chains hold n k / 12 independent values. Averages over the chains are
    # good to 1 / sqrt(33,000) = 0.5 %, and the bound 0.02 is four times that.
    assert np.sqrt(np.mean(states**2)) == pytest.approx(deviation, rel=0.02)
    assert abs(states.mean()) < 0.02 * deviation
    for lag in (1, 5, 10):
        correlation = np.mean(states[:-lag] * states[lag:]) / deviation**2
        assert correlation == pytest.approx((1 - THETA) ** lag, abs=0.02)
    apart = np.mean(states[:, :-1] * states[:, 1:]) / deviation**2  # of neighbouring chains
    assert abs(apart) < 0.02


def test_the_noise_scale_falls_linearly_and_stays():
    scales = [noise_scale(call, 0.3, 0.05, 10_000) for call in (0, 5_000, 10_000, 50_000)]
    np.testing.assert_allclose(scales, [0.3, 0.175, 0.05, 0.05], rtol=1e-14)


# Replay buffer


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("capacity", [7, 300])
def test_the_buffer_keeps_the_last_transitions(stride: int, capacity: int):
    buffer = ReplayBuffer(capacity, n_tasks=2, size=3, stride=stride)
    n = 1000
    for t in range(n):
        before = t if stride == 1 else 2 * t
        buffer.begin(np.full(3, before), np.full(2, -t))
        if t in (3, 500):  # a state with an open transition goes on
            again = ReplayBuffer(capacity, n_tasks=2, size=3, stride=stride)
            again.restore(buffer.state())
            buffer = again
        buffer.end(np.full(3, before + 1), 10 * t)
        if t + 1 in (1, 5, capacity, n):
            kept = np.arange(max(0, t + 1 - capacity), t + 1)
            assert len(buffer) == len(kept)
            drawn = buffer.sample(4000, np.random.default_rng(t))
            first = kept if stride == 1 else 2 * kept
            found = np.unique(np.hstack([drawn.observations[:, :1], drawn.next_observations[:, :1]]), axis=0)
            np.testing.assert_array_equal(found, np.stack([first, first + 1], axis=1))
            time = drawn.rewards / 10
            np.testing.assert_array_equal(drawn.actions[:, 0], -time)
            np.testing.assert_array_equal(drawn.observations[:, 0], time * stride)
            mean, deviation = buffer.reward_scale()
            assert mean == pytest.approx(10 * kept.mean())
            assert deviation == pytest.approx(10 * kept.std() if len(kept) > 1 else 1)
    assert buffer.state()["observations"].nbytes <= (capacity + 1) * stride * 3 * 4

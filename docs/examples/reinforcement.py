"""Multi-task PPO in one file, as in CleanRL, on four variants of CartPole. It needs gymnasium, and no Meta-World.

The variants want different things of one network: one has a long pole, one a weak motor, and one swaps left and right.
Run `python docs/examples/reinforcement.py dumps/cartpole`. The lines that record are marked.
"""

import sys

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import toppo  # <- records

VARIANTS = {"plain": {}, "long pole": {"length": 1.5}, "weak motor": {"force_mag": 4}, "swapped": {"force_mag": -10}}
K, COPIES, ROLLOUT, UPDATES, EPOCHS = len(VARIANTS), 4, 64, 40, 6
DISCOUNT, CLIP = 0.98, 0.2


def network(outputs: int) -> nn.Module:
    """A network that sees an observation and which task it is."""
    return nn.Sequential(nn.Linear(4 + K, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


def task_losses(model: nn.ModuleDict, batch: dict[str, Tensor]) -> Tensor:
    """PPO's clipped loss plus that of the values, one per task. A batch is (time, task, copy, ...)."""
    policy, value = Categorical(logits=model["actor"](batch["seen"])), model["critic"](batch["seen"]).squeeze(-1)
    ratio, gain = (policy.log_prob(batch["action"]) - batch["log_prob"]).exp(), batch["gain"]
    clipped = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain)
    return (0.5 * (value - batch["target"]) ** 2 - clipped - 0.01 * policy.entropy()).mean((0, 2))


def train(path: str, combiner: str | None = None) -> tuple[str, Tensor]:
    """Train, and record every 20th step. Return the dump, and the length of the last episodes of each task."""
    torch.manual_seed(0)
    envs = [gymnasium.make("CartPole-v1") for _ in range(K * COPIES)]
    for n, env in enumerate(envs):
        vars(env.unwrapped).update(list(VARIANTS.values())[n // COPIES])
    start = np.stack([env.reset(seed=n)[0] for n, env in enumerate(envs)])
    model = nn.ModuleDict({"actor": network(2), "critic": network(1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    task = torch.eye(K).repeat_interleave(COPIES, 0)
    seen, length, finished = torch.cat([torch.tensor(start), task], 1), torch.zeros(len(envs)), torch.zeros(len(envs))
    options = {"tasks": list(VARIANTS), "every": 20, "sides": dict(model), "combiner": combiner}
    with toppo.record(path, model, **options) as recorder:  # <- records
        for _ in range(UPDATES):
            rows = []
            for _ in range(ROLLOUT):
                with torch.no_grad():
                    policy = Categorical(logits=model["actor"](seen))
                action = policy.sample()
                steps = [env.step(int(a)) for env, a in zip(envs, action, strict=True)]
                done = torch.tensor([fallen or over for _, _, fallen, over, _ in steps])
                length += 1
                finished = torch.where(done, length, finished)
                length[done] = 0
                rows.append({"seen": seen, "action": action, "log_prob": policy.log_prob(action), "done": done})
                after = [env.reset()[0] if over else step[0] for env, step, over in zip(envs, steps, done, strict=True)]
                seen = torch.cat([torch.tensor(np.stack(after)), task], 1)
            with torch.no_grad():
                ahead = model["critic"](seen).squeeze(-1)
                for row in reversed(rows):  # the reward is 1 a step
                    ahead = row["target"] = 1 + DISCOUNT * torch.where(row["done"], 0.0, ahead)
                    row["gain"] = ahead - model["critic"](row["seen"]).squeeze(-1)
            batch = {name: torch.stack([row[name] for row in rows]).unflatten(1, (K, COPIES)) for name in rows[0]}
            batch["gain"] = (batch["gain"] - batch["gain"].mean()) / batch["gain"].std()
            for _ in range(EPOCHS):
                optimizer.zero_grad()
                returns = finished.view(K, COPIES).mean(1)
                recorder.backward(task_losses(model, batch), episode_return=returns)  # <- for sum(losses).backward()
                optimizer.step()
    return recorder.path, finished.view(K, COPIES).mean(1)


if __name__ == "__main__":
    print(train(*sys.argv[1:]))

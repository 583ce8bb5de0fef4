"""PopArt: value targets are normalised per task, and the values themselves do not change (Sections 4.1 and B.5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Statistics = Literal["welford", "ema", "off"]


class PopArt(nn.Module):
    """The per-task affine layer n_i = W_i z + b_i and the statistics (mu_i, sigma_i) with V_i = sigma_i n_i + mu_i.

    All numbers are float64, so a change of the statistics changes V_i only by fp64 rounding. With statistics "off" the
    layer has no parameters, n_i = z and V_i = n_i.

    Args:
        n_tasks: K.
        statistics: "welford" takes the moments over the whole run (Eq. B.1). "ema" moves the first and second moments
            by `beta` per collect, with Adam's bias correction (van Hasselt et al. 2016, Eq. 4).
        sigma_min: lower bound of sigma_i, in units of the return.
        beta: rate of "ema" per collect.
    """

    mu: Tensor
    sigma: Tensor
    count: Tensor
    m2: Tensor

    def __init__(self, n_tasks: int, statistics: Statistics, sigma_min: float = 1e-2, beta: float = 0.1) -> None:
        super().__init__()
        self.statistics = statistics
        self.sigma_min = sigma_min
        self.beta = beta
        ones, zeros = torch.ones(n_tasks, dtype=torch.float64), torch.zeros(n_tasks, dtype=torch.float64)
        self.register_buffer("mu", zeros.clone())
        self.register_buffer("sigma", ones.clone())
        self.register_buffer("count", zeros.clone())  # Welford: targets seen; EMA: collects seen
        self.register_buffer("m2", zeros.clone())  # Welford: sum of squared deviations; EMA: second moment
        if statistics != "off":
            self.weight = nn.Parameter(ones.clone())
            self.bias = nn.Parameter(zeros.clone())

    def forward(self, z: Tensor, tasks: slice = slice(None)) -> Tensor:
        """Normalised values n_i = W_i z + b_i, (k, ...) float64, for critic outputs z (k, ...) of these tasks."""
        z = z.double()
        return z if self.statistics == "off" else _rows(self.weight[tasks], z) * z + _rows(self.bias[tasks], z)

    def denormalise(self, n: Tensor) -> Tensor:
        """Values V_i = sigma_i n_i + mu_i for normalised values (K, ...)."""
        return _rows(self.sigma, n) * n + _rows(self.mu, n)

    def normalise(self, v: Tensor) -> Tensor:
        """Normalised values (V_i - mu_i) / sigma_i for raw values or targets (K, ...)."""
        return (v - _rows(self.mu, v)) / _rows(self.sigma, v)

    @torch.no_grad()
    def update(self, targets: Tensor) -> None:
        """Add the raw value targets (K, N) of one collect (rollout phase) to the statistics.

        W_i and b_i are adjusted so that no V_i changes.
        """
        if self.statistics == "off":
            return
        mu, sigma = self.mu.clone(), self.sigma.clone()
        (self._welford if self.statistics == "welford" else self._ema)(targets.double())
        self.weight.mul_(sigma / self.sigma)
        self.bias.copy_((sigma * self.bias + mu - self.mu) / self.sigma)

    def _welford(self, targets: Tensor) -> None:
        """Chan-Golub-LeVeque merge of one batch into count, mu and M2 (Eq. B.1)."""
        n_batch = targets.shape[1]
        batch_mean = targets.mean(1)
        n_new = self.count + n_batch
        delta = batch_mean - self.mu
        batch_m2 = (targets - batch_mean[:, None]).square().sum(1)
        self.m2 += batch_m2 + delta.square() * self.count * n_batch / n_new
        self.mu += delta * n_batch / n_new
        self.count.copy_(n_new)
        self.sigma.copy_((self.m2 / n_new).sqrt().clamp_min(self.sigma_min))

    def _ema(self, targets: Tensor) -> None:
        self.count += 1
        rate = self.beta / (1 - (1 - self.beta) ** self.count)
        self.mu += rate * (targets.mean(1) - self.mu)
        self.m2 += rate * (targets.square().mean(1) - self.m2)
        self.sigma.copy_((self.m2 - self.mu.square()).clamp_min(0).sqrt().clamp_min(self.sigma_min))


def _rows(per_task: Tensor, like: Tensor) -> Tensor:
    """The (K,) numbers, shaped to broadcast against (K, ...)."""
    return per_task.view(-1, *[1] * (like.dim() - 1))

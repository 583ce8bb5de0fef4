"""The diagonal Gaussian policy: log-density of actions, and entropy. Pure functions of torch tensors."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor


def log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log-density (K, n) of unclipped actions under the diagonal Gaussian policy.

    Args:
        mean: (K, n, A).
        log_std: (K, A).
        action: (K, n, A).
    """
    return log_prob_of_noise((action - mean) * torch.exp(-log_std)[:, None, :], log_std)


def log_prob_of_noise(z: Tensor, log_std: Tensor) -> Tensor:
    """Log-density (K, n) of the actions mean + std z, for standardised noise z (K, n, A) and log-stds (K, A)."""
    return -0.5 * z.square().sum(-1) - (log_std.sum(-1) + 0.5 * log(2 * pi) * z.shape[-1])[:, None]


def entropy(log_std: Tensor) -> Tensor:
    """Entropy H_i (K,) in nats of the diagonal Gaussian with log-stds (K, A). It does not depend on the state."""
    return (log_std + 0.5 * log(2 * pi) + 0.5).sum(-1)

"""MT-PPO's per-task losses (Eq. 1): pure functions of (K, n) slices, one number a task."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise_per_task(advantage: Tensor) -> Tensor:
    """Advantages (K, n) with mean 0 and standard deviation 1 in each task's slice (Section 2); a constant slice gives
    zeros.
    """
    centred = advantage - advantage.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-8)


def policy_loss(log_ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Clipped surrogate L_i^a and the share of clipped-out samples.

    Args:
        log_ratio: log rho (K, n).
        advantage: (K, n), already normalised.
        clip: epsilon.

    Returns:
        L_i^a (K,), and per task the share of samples whose ratio the clip cut off (K,).
    """
    ratio = log_ratio.exp()
    surrogate = ratio * advantage
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantage
    with torch.no_grad():
        cut = (clipped < surrogate).to(ratio.dtype).mean(1)
    return -torch.minimum(surrogate, clipped).mean(1), cut


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """Squared value error L_i^c, with PPO's value clip, and the share of clipped-out samples.

    All three in the critic's own units: normalised with PopArt, raw without.

    Args:
        value: predictions (K, n).
        old_value: predictions at the last (re)compute (K, n), around which the clip is laid.
        target: value targets (K, n).
        clip: epsilon of the value clip, or None for none.

    Returns:
        L_i^c (K,): the mean of the larger of the two squared errors, without a factor 1/2; and the share of samples
        whose clipped error
        ruled, so that their gradient is zero (K,).
    """
    error = (value - target).square()
    if clip is None:
        return error.mean(1), torch.zeros_like(error[:, 0])
    moved = value - old_value
    clipped_error = (old_value + moved.clamp(-clip, clip) - target).square()
    with torch.no_grad():
        cut = ((clipped_error > error) & (moved.abs() > clip)).to(error.dtype).mean(1)
    return torch.maximum(error, clipped_error).mean(1), cut

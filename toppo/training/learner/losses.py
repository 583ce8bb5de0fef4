"""Per-task losses of multi-task PPO (Eq. 1): pure functions of (K, n) tensors that give one number per task."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise_per_task(advantage: Tensor) -> Tensor:
    """Advantages (K, n) with mean 0 and standard deviation 1 per task (Section 2). If all are equal, they become 0."""
    centred = advantage - advantage.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-8)


def policy_loss(log_ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped policy loss L_i^a of every task, and the share of samples that are clipped.

    L_i^a = -mean(min(rho A, clamp(rho, 1 - epsilon, 1 + epsilon) A)).

    Args:
        log_ratio: log rho (K, n), the log of the new over the old probability of the action.
        advantage: A (K, n), normalised.
        clip: epsilon.

    Returns:
        L_i^a (K,), and the share of each task's samples whose gradient the clip removes (K,).
    """
    ratio = log_ratio.exp()
    surrogate = ratio * advantage
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantage
    with torch.no_grad():
        cut = (clipped < surrogate).to(ratio.dtype).mean(1)
    return -torch.minimum(surrogate, clipped).mean(1), cut


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """Squared value error L_i^c of every task with PPO's value clip, and the share of samples that are clipped.

    L_i^c is the mean of the larger of two squared errors: of the value, and of the value clipped around the old value.
    There is no factor 1/2. Values and targets are in the critic's units: normalised with PopArt, raw without it.

    Args:
        value: predictions (K, n).
        old_value: predictions when values were last computed (K, n), the centre of the clip range.
        target: value targets (K, n).
        clip: epsilon of the value clip; None for no clip.

    Returns:
        L_i^c (K,), and the share of each task's samples whose gradient the clip removes (K,).
    """
    error = (value - target).square()
    if clip is None:
        return error.mean(1), torch.zeros_like(error[:, 0])
    moved = value - old_value
    clipped_error = (old_value + moved.clamp(-clip, clip) - target).square()
    with torch.no_grad():
        cut = ((clipped_error > error) & (moved.abs() > clip)).to(error.dtype).mean(1)
    return torch.maximum(error, clipped_error).mean(1), cut

"""The numbers that a Gram heatmap shows (Figures 3, D.1 and D.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from toppo.combiners.geometry import cosines, gradient_norms, mean_abs_cosine, spread
from toppo_diag.analysis.presence import Known, of_pairs
from toppo_diag.analysis.typical import Typical, typical, typical_minibatch


@dataclass(frozen=True)
class Panel:
    """One Gram G = J J' as a heatmap shows it, and two numbers over all minibatches that it stands for.

    Attributes:
        tasks: K names.
        cosine: G_ij / sqrt(G_ii G_jj), (K, K); 0 in rows and columns of dead tasks, NaN in those of
            tasks that are not known.
        log10_square: log10 G_ii, (K,); -inf for a dead task, NaN for one that is not known.
        share: ||g_i|| / K, the length of a task's part in the mean over the K known tasks, (K,).
        spread: max ||g_i|| / min ||g_i|| over live tasks, median and range over the minibatches.
        mean_abs_cosine: mean |cos| over pairs of live tasks, median and range over the minibatches.
        shown: index of the Gram among those of the minibatches.
    """

    tasks: tuple[str, ...]
    cosine: Float[np.ndarray, "K K"]
    log10_square: Float[np.ndarray, "K"]
    share: Float[np.ndarray, "K"]
    spread: Typical
    mean_abs_cosine: Typical
    shown: int = 0


def gram_panel(
    gram: Float[np.ndarray, "K K"], tasks: tuple[str, ...], known: Bool[np.ndarray, "K"] | None = None
) -> Panel:
    """The numbers of one Gram, defined as in the captions of Figures 3 and D.1.

    Args:
        gram: G; 0 in rows and columns of tasks that are not known.
        tasks: K names.
        known: whether each task is known; None where all are.
    """
    norms = gradient_norms(gram)
    there = np.ones(len(norms), dtype=bool) if known is None else known
    with np.errstate(divide="ignore"):
        log10_square = 2 * np.log10(norms)
    return Panel(
        tasks=tasks,
        cosine=np.where(there[:, None] & there[None, :], cosines(gram), np.nan),
        log10_square=np.where(there, log10_square, np.nan),
        share=np.where(there, norms, np.nan) / max(1, there.sum()),
        spread=typical(of_pairs(spread(norms[None]), gram[None])),
        mean_abs_cosine=typical(of_pairs(mean_abs_cosine(gram[None]), gram[None])),
    )


def typical_panel(gram: Float[np.ndarray, "N K K"], tasks: tuple[str, ...], known: Known = None) -> Panel:
    """The panel of N minibatches of one snapshot: the Gram of the typical one, and the medians over all.

    Args:
        gram: G of each minibatch.
        tasks: K names.
        known: whether each task is known in each Gram; None where all are.
    """
    some = np.arange(len(gram)) if known is None else np.flatnonzero(known.any(axis=1))
    shown = int(some[typical_minibatch(gram[some])]) if len(some) else 0
    return replace(
        gram_panel(gram[shown], tasks, None if known is None else known[shown]),
        spread=typical(of_pairs(spread(gradient_norms(gram)), gram)),
        mean_abs_cosine=typical(of_pairs(mean_abs_cosine(gram), gram)),
        shown=shown,
    )

"""The numbers that a Gram heatmap shows (Figures 3, D.1 and D.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from toppo.combiners.geometry import cosines, gradient_norms, mean_abs_cosine, spread
from toppo_diag.analysis.typical import Typical, typical, typical_minibatch


@dataclass(frozen=True)
class Panel:
    """One Gram G = J J' as a heatmap shows it, and two numbers over all minibatches that it stands for.

    Attributes:
        tasks: K names.
        cosine: G_ij / sqrt(G_ii G_jj), (K, K); 0 in rows and columns of dead tasks.
        log10_square: log10 G_ii, (K,); -inf for a dead task.
        share: ||g_i|| / K, the length of a task's part in the mean, (K,).
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


def gram_panel(gram: Float[np.ndarray, "K K"], tasks: tuple[str, ...]) -> Panel:
    """The numbers of one Gram, defined as in the captions of Figures 3 and D.1."""
    norms = gradient_norms(gram)
    with np.errstate(divide="ignore"):
        log10_square = 2 * np.log10(norms)
    return Panel(
        tasks=tasks,
        cosine=cosines(gram),
        log10_square=log10_square,
        share=norms / len(norms),
        spread=typical(spread(norms[None])),
        mean_abs_cosine=typical(mean_abs_cosine(gram[None])),
    )


def typical_panel(gram: Float[np.ndarray, "N K K"], tasks: tuple[str, ...]) -> Panel:
    """The panel of N minibatches of one snapshot: the Gram of the typical one, and the medians over all.

    Args:
        gram: G of each minibatch.
        tasks: K names.
    """
    shown = typical_minibatch(gram)
    return replace(
        gram_panel(gram[shown], tasks),
        spread=typical(spread(gradient_norms(gram))),
        mean_abs_cosine=typical(mean_abs_cosine(gram)),
        shown=shown,
    )

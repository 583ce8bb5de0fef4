"""The words of the report about each check: what it is called, how to read it, and which view shows it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Explanation:
    """What the report says of one check.

    Attributes:
        topic: what is checked, whatever comes of it.
        title: the finding in a few words.
        read: what it means, and what usually helps.
        view: the view that shows it; None if no view does.
        choose: what to choose in that view.
    """

    topic: str
    title: str
    read: str
    view: str | None = None
    choose: dict[str, str] = field(default_factory=dict)


EXPLANATIONS: dict[str, Explanation] = {
    "starved": Explanation(
        "starved tasks",
        "Tasks get nearly nothing of the step",
        "The share of task i in the direction d is w_i <g_i, d> / ||d||^2. An equal share is 1 / K. A task with a "
        "tenth of it hardly moves the parameters. A negative share means that the others outvote it. If its "
        "success or loss stands still too, this is a likely reason. A combiner that balances contributions, such "
        "as FairGrad, gives every task its share.",
        "contributions",
    ),
    "top_1": Explanation(
        "a task that holds the direction",
        "One task makes the step",
        "The top-1 mass is the largest contribution ||w_i g_i|| over the sum of all. With equal contributions it "
        "is 1 / K. Of two tasks, one always makes half of the step or more. So the limit is a point on the way from "
        "1 / K to 1. Above it, the step is mostly that of a single task.",
        "contributions",
    ),
    "spread": Explanation(
        "spread of gradient norms",
        "Gradient norms lie far apart",
        "A plain mean follows the tasks with the longest gradients. Normalising the targets of each task (PopArt) "
        "brings the norms together. A combiner that is invariant to scale, such as FairGrad, does not mind them.",
        "norms",
    ),
    "conflict": Explanation(
        "pairs that oppose each other",
        "Tasks oppose each other",
        "A pair with a negative cosine opposes each other: a step for one raises the loss of the other, to first "
        "order. Single minibatches are noisy, so a pair counts only if its typical cosine stays low. PCGrad and "
        "CAGrad change the step for such pairs. A layer where most pairs oppose each other can be split by task "
        "(Recon, ICLR 2023).",
        "pair",
    ),
    "collapse": Explanation(
        "collapse of directions",
        "The gradients point along few directions",
        "A high mean |cos|, or an effective rank far below the number of tasks, means that the gradients share a "
        "few directions. The TOPPO paper calls this co-linear collapse. It is no harmony: tasks cannot be told "
        "apart. LayerNorm in the network lowers it.",
        "totals",
    ),
    "dead": Explanation(
        "dead tasks",
        "Tasks have no gradient",
        "The loss of a dead task does not reach the parameters of this side. Look for a loss that is constant, a "
        "clip that removes every sample, or data that this task did not get.",
        "norms",
    ),
    "not_finite": Explanation(
        "gradients that are not finite",
        "Gradients are not finite",
        "A NaN or an infinity in a gradient spoils the step of every task. `toppo-diag verify` lists the places. "
        "Look for a division by zero, an overflow of half precision, or a learning rate that is too high.",
        "norms",
    ),
    "clipped": Explanation(
        "samples cut off by PPO's clip",
        "PPO's clip silences tasks",
        "PPO gives a sample no gradient once its ratio (actor) or its value (critic) has moved by more than the "
        "clip. A task whose samples are nearly all clipped no longer learns from this rollout. With raw returns "
        "the value clip is often far too narrow for tasks with large returns.",
    ),
    "clip_factor": Explanation(
        "clip of the gradient norm",
        "The clip of the gradient norm shortens the step",
        "The clip acts on actor and critic together. If one side has a very long gradient, it takes the step "
        "length of the other. Look at the norms of both sides.",
        "norms",
    ),
    "solver": Explanation(
        "solver of the combiner",
        "The combiner did not find its solution",
        "The weights of these minibatches are a fallback, not the method's own. The numbers behind it are the "
        "recorded status and residual of each minibatch.",
        "contributions",
    ),
    "popart": Explanation(
        "lag of PopArt's statistics",
        "PopArt's statistics lag behind",
        "In PopArt's units, predicting the mean of the returns has a loss of 1. A larger loss means that mu or "
        "sigma do not fit the present returns. A Welford average weighs old returns as much as new ones; an "
        "exponential average follows faster.",
        "curves",
        {"curve": "loss_critic"},
    ),
}
"""What the report says of each check, by kind, in the order of the page."""

"""Per-task gradients at the price of one plain backward.

`TaskLinear`, `TaskLayerNorm` and `TaskReLU` compute exactly what `nn.Linear`, `nn.LayerNorm` and `nn.ReLU` compute, on
inputs laid out (K, n, features), task by task; `OneHotLinear` what `nn.Linear` does on observations with the task's
one-hot. While a `Slab` is attached, their backward pass writes the gradient of every task's own loss into the task's
row of the slab: the products are those of an ordinary backward, batched over K instead of summed over it, so no graph
is walked K times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Linear(torch.autograd.Function):
    """y = x W' + b on x (K, n, in); backward writes dW (K, out, in) and db (K, out) of each task into the slab."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dW: Tensor, db: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.slab = dW, db
        y = x.new_empty(*x.shape[:-1], len(weight))
        rows = y.flatten(0, 1)  # `F.linear` would return a view, and autograd lets nobody write into that
        if bias is None:
            torch.mm(x.flatten(0, 1), weight.t(), out=rows)
        else:
            torch.addmm(bias, x.flatten(0, 1), weight.t(), out=rows)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dW, db = ctx.slab
        torch.bmm(dy.mT, x, out=dW)
        if db is not None:
            torch.sum(dy, dim=1, out=db)
        return dy @ weight if ctx.needs_input_grad[0] else None, None, None, None, None


class _OneHotLinear(torch.autograd.Function):
    """`_Linear` on obs (K, n, obs) and the one-hot, which picks a column of W: forward and backward, [obs, 1] times
    [W_obs, w_i + b]' task by task is all there is to compute.
    """

    @staticmethod
    def forward(
        ctx: Any, obs: Tensor, weight: Tensor, bias: Tensor | None, tasks: slice, dW: Tensor | None, db: Tensor | None
    ) -> Tensor:
        k, n, obs_dim = obs.shape
        own = weight.new_empty(k, len(weight), obs_dim + 1)
        own[..., :-1] = weight[:, :obs_dim]
        own[..., -1] = weight[:, obs_dim:][:, tasks].t()
        if bias is not None:
            own[..., -1] += bias
        x = torch.cat([obs, obs.new_ones(k, n, 1)], dim=-1)
        ctx.save_for_backward(x, weight)
        ctx.tasks, ctx.slab = tasks, (dW, db)
        return torch.bmm(x, own.mT)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dW, db = ctx.slab
        obs_dim = x.shape[-1] - 1
        products = torch.bmm(dy.mT, x)
        dW[..., :obs_dim] = products[..., :-1]
        # Of its columns for the one-hot, a task has a gradient in its own only: the others were zero and stay so.
        dW[..., obs_dim:][..., ctx.tasks].diagonal(dim1=0, dim2=2).copy_(products[..., -1].t())
        if db is not None:
            db.copy_(products[..., -1])
        return dy @ weight[:, :obs_dim] if ctx.needs_input_grad[0] else None, None, None, None, None, None


class _LayerNorm(torch.autograd.Function):
    """LayerNorm over the last axis of x (K, n, features); backward writes each task's gain and shift gradients (K,
    features).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dW: Tensor, db: Tensor) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.slab = dW, db
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        dW, db = ctx.slab
        torch.bmm(rstd.mT, (x - mean).mul_(dy), out=dW[:, None])
        torch.sum(dy, dim=1, out=db)
        dx, _, _ = torch.ops.aten.native_layer_norm_backward(
            dy.contiguous(), x, list(weight.shape), mean, rstd, weight, bias, [True, False, False]
        )
        return dx, None, None, None, None, None


class _ReLU(torch.autograd.Function):
    """max(x, 0), in place forward and backward: memory that stays in the caches is worth a fortieth of a minibatch.

    Nobody else may need x or dy: x is what a task layer gave, none of which keeps its output, and dy is what the one
    layer after it passed back. (Autograd notices the first, not the second: a sum passes one dy to both its terms.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.relu_())
        return x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dx: Tensor = torch.ops.aten.threshold_backward.grad_input(dy, y, 0, grad_input=dy)
        return dx


class TaskLinear(nn.Linear):
    """`nn.Linear` on (K, n, in) whose per-task gradients a `Slab` can collect."""

    task_grads: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (K, n, in) to (K, n, out); any leading shape while no slab is attached.

        Raises:
            ValueError: a slab of another number of tasks is attached.
        """
        if self.task_grads is None or not torch.is_grad_enabled():
            return super().forward(x)
        grads = _room(self.task_grads, x)
        y: Tensor = _Linear.apply(x, self.weight, self.bias, grads["weight"], grads.get("bias"))  # type: ignore[no-untyped-call]
        return y


class OneHotLinear(TaskLinear):
    """`nn.Linear` on observations (K, n, obs) with the task's one-hot appended, (K, n, obs + K).

    Args:
        obs_dim: features of an observation.
        n_tasks: K.
        out_features: of the output.
        bias: whether it has one.
    """

    def __init__(self, obs_dim: int, n_tasks: int, out_features: int, bias: bool = True) -> None:
        super().__init__(obs_dim + n_tasks, out_features, bias)
        self.n_tasks = n_tasks

    def forward(self, obs: Tensor, tasks: slice = slice(None)) -> Tensor:
        """Map (k, n, obs) of these of K tasks to (k, n, out).

        Raises:
            ValueError: a slab of another number of tasks is attached.
        """
        if self.task_grads is None and torch.is_grad_enabled():
            return F.linear(with_one_hot(obs, self.n_tasks, tasks), self.weight, self.bias)
        grads = _room(self.task_grads, obs) if self.task_grads else {}
        y: Tensor = _OneHotLinear.apply(obs, self.weight, self.bias, tasks, grads.get("weight"), grads.get("bias"))  # type: ignore[no-untyped-call]
        return y


def _room(task_grads: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Where the gradients of x's tasks go, once it is sure that they fit."""
    n_tasks = len(task_grads["weight"])
    if x.dim() != 3 or len(x) != n_tasks:
        expected = f"expected (K = {n_tasks}, n, features), got {tuple(x.shape)}"
        raise ValueError(f"a slab of {n_tasks} tasks is attached: {expected}")
    return task_grads


def with_one_hot(obs: Tensor, n_tasks: int, tasks: slice = slice(None)) -> Tensor:
    """Append the task one-hot to observations (k, n, obs_dim) of these of K tasks: (k, n, obs_dim + K)."""
    one_hot = torch.eye(n_tasks, device=obs.device, dtype=obs.dtype)[tasks]
    return torch.cat([obs, one_hot[:, None, :].expand(-1, obs.shape[1], -1)], dim=-1)


class TaskLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` on (K, n, features) whose per-task gradients a `Slab` can collect."""

    task_grads: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of (K, n, features); any leading shape while no slab is attached.

        Raises:
            ValueError: a slab of another number of tasks is attached.
        """
        if self.task_grads is None or not torch.is_grad_enabled():
            return super().forward(x)
        grads = _room(self.task_grads, x)
        y: Tensor = _LayerNorm.apply(x, self.weight, self.bias, self.eps, grads["weight"], grads["bias"])  # type: ignore[no-untyped-call]
        return y


class TaskReLU(nn.ReLU):
    """`nn.ReLU` for the place between two task layers with nothing else at its input and output: it works in place, but
    for a plain backward pass. Before a sum or beside a skip connection take `nn.ReLU`.
    """

    task_grads: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0) of any shape; while a slab is attached, or without gradients, x is overwritten."""
        if not torch.is_grad_enabled():
            return F.relu_(x)
        y: Tensor = F.relu(x) if self.task_grads is None else _ReLU.apply(x)  # type: ignore[no-untyped-call]
        return y


TaskLayer = TaskLinear | TaskLayerNorm | TaskReLU

"""Layers that give per-task gradients at the cost of one ordinary backward pass.

`TaskLinear`, `TaskLayerNorm` and `TaskReLU` compute exactly what `nn.Linear`, `nn.LayerNorm` and `nn.ReLU` compute.
Their inputs are (K, n, features): K tasks with n samples each. `OneHotLinear` is `nn.Linear` on observations with the
one-hot of the task appended.

While a `Slab` is attached, their backward pass writes the gradient of each task's own loss into the task's row of the
slab, the matrix J (K, P). The products are those of an ordinary backward pass, batched over K instead of summed over K.
So no graph is walked K times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Linear(torch.autograd.Function):
    """y = x W' + b for x (K, n, in). Backward writes dW (K, out, in) and db (K, out), per task, into the slab."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dW: Tensor, db: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.slab = dW, db
        y = x.new_empty(*x.shape[:-1], len(weight))
        rows = y.flatten(0, 1)  # `F.linear` would return a view, into which autograd allows no writing
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
    """`_Linear` on observations (K, n, obs_dim) with the one-hot of the task appended.

    The one-hot of task i picks one column w_i of W. So the output for task i is [obs, 1] [W_obs, w_i + b]', and the
    backward pass needs the same small product.
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
        # A task has a gradient in its own one-hot column only. The other columns were zero and stay zero.
        dW[..., obs_dim:][..., ctx.tasks].diagonal(dim1=0, dim2=2).copy_(products[..., -1].t())
        if db is not None:
            db.copy_(products[..., -1])
        return dy @ weight[:, :obs_dim] if ctx.needs_input_grad[0] else None, None, None, None, None, None


class _LayerNorm(torch.autograd.Function):
    """LayerNorm over the last axis of x (K, n, features).

    Backward writes the gradients of gain and shift, (K, features) each, into the slab.
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
    """max(x, 0), in place forward and backward. This saves a fortieth of a minibatch's time, thanks to the caches.

    Safe only if no other operation needs x or dy. x must be the output of a task layer, because task layers do not keep
    their output. dy must come from a single next layer. Autograd reports the first mistake but not the second: a sum
    passes one dy to both of its terms.
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
    """`nn.Linear` on inputs (K, n, in), whose per-task gradients a `Slab` can collect.

    Args: those of `nn.Linear`.
    """

    task_grads: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The output y = x W' + b, (K, n, out).

        Args:
            x: inputs, (K, n, in). While no slab is attached, any leading shape works.

        Raises:
            ValueError: the attached slab has another number of tasks than x.
        """
        if self.task_grads is None or not torch.is_grad_enabled():
            return super().forward(x)
        grads = _room(self.task_grads, x)
        y: Tensor = _Linear.apply(x, self.weight, self.bias, grads["weight"], grads.get("bias"))  # type: ignore[no-untyped-call]
        return y


class OneHotLinear(TaskLinear):
    """`nn.Linear` on observations (K, n, obs_dim) with the one-hot of the task appended, (K, n, obs_dim + K).

    Args:
        obs_dim: number of features of an observation.
        n_tasks: K.
        out_features: number of features of the output.
        bias: whether the layer has a bias.
    """

    def __init__(self, obs_dim: int, n_tasks: int, out_features: int, bias: bool = True) -> None:
        super().__init__(obs_dim + n_tasks, out_features, bias)
        self.n_tasks = n_tasks

    def forward(self, obs: Tensor, tasks: slice = slice(None)) -> Tensor:
        """The output (k, n, out_features) for k of the K tasks.

        Args:
            obs: observations without the one-hot, (k, n, obs_dim).
            tasks: which of the K tasks they belong to.

        Raises:
            ValueError: the attached slab has another number of tasks than obs.
        """
        if self.task_grads is None and torch.is_grad_enabled():
            return F.linear(with_one_hot(obs, self.n_tasks, tasks), self.weight, self.bias)
        grads = _room(self.task_grads, obs) if self.task_grads else {}
        y: Tensor = _OneHotLinear.apply(obs, self.weight, self.bias, tasks, grads.get("weight"), grads.get("bias"))  # type: ignore[no-untyped-call]
        return y


def _room(task_grads: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The slab's tensors for the gradients of the tasks in x.

    Raises:
        ValueError: x has another number of tasks, so its gradients would go into the rows of other tasks.
    """
    n_tasks = len(task_grads["weight"])
    if x.dim() != 3 or len(x) != n_tasks:
        shapes = f"give an input of shape ({n_tasks}, n, features), not {tuple(x.shape)}"
        raise ValueError(f"a slab of {n_tasks} tasks is attached: {shapes}")
    return task_grads


def with_one_hot(obs: Tensor, n_tasks: int, tasks: slice = slice(None)) -> Tensor:
    """Observations with the one-hot of their task appended, (k, n, obs_dim + K).

    Args:
        obs: observations of k tasks, (k, n, obs_dim).
        n_tasks: K.
        tasks: which of the K tasks they belong to.

    Example:
        >>> with_one_hot(torch.zeros(2, 1, 1), 2)
        tensor([[[0., 1., 0.]],
        <BLANKLINE>
                [[0., 0., 1.]]])
    """
    one_hot = torch.eye(n_tasks, device=obs.device, dtype=obs.dtype)[tasks]
    return torch.cat([obs, one_hot[:, None, :].expand(-1, obs.shape[1], -1)], dim=-1)


class TaskLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` on inputs (K, n, features), whose per-task gradients a `Slab` can collect.

    Args: those of `nn.LayerNorm`.
    """

    task_grads: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The input, normalised over its last axis.

        Args:
            x: inputs, (K, n, features). While no slab is attached, any leading shape works.

        Raises:
            ValueError: the attached slab has another number of tasks than x.
        """
        if self.task_grads is None or not torch.is_grad_enabled():
            return super().forward(x)
        grads = _room(self.task_grads, x)
        y: Tensor = _LayerNorm.apply(x, self.weight, self.bias, self.eps, grads["weight"], grads["bias"])  # type: ignore[no-untyped-call]
        return y


class TaskReLU(nn.ReLU):
    """`nn.ReLU` for the place between two task layers. Use `nn.ReLU` before a sum or next to a skip connection.

    It works in place, except when gradients are on and no slab is attached. So nothing else may use its input or the
    gradient of its output.
    """

    task_grads: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The output max(x, 0), in the shape of x. While a slab is attached, or without gradients, x is overwritten."""
        if not torch.is_grad_enabled():
            return F.relu_(x)
        y: Tensor = F.relu(x) if self.task_grads is None else _ReLU.apply(x)  # type: ignore[no-untyped-call]
        return y


TaskLayer = TaskLinear | TaskLayerNorm | TaskReLU
"""Any of the layers that a `Slab` attaches to."""

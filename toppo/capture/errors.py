"""What a training loop can do wrong while its gradients are recorded."""

from __future__ import annotations

from toppo.common.errors import UsageError


class CaptureError(UsageError):
    """Losses, a model or a graph that cannot be recorded. It is also a ValueError."""


def explained(error: RuntimeError) -> CaptureError | None:
    """A torch error as one sentence with its mend, where the cause is known. Otherwise None.

    Args:
        error: what autograd raised.
    """
    text = str(error)
    for part, problem in _KNOWN.items():
        if part in text:
            return CaptureError(problem)
    return None


_KNOWN = {
    "backward through the graph a second time": "the graph of these losses was already walked, so it is gone; "
    "call `recorder.backward` once for each forward pass, and no other backward on the same losses",
    "modified by an inplace operation": "a tensor that the gradients need was changed in place after the forward pass; "
    "step the optimizer after `recorder.backward`, or replace the in-place operation",
    "donated buffers": "this compiled model frees its buffers after one walk; "
    "call `toppo.record` before the model's first forward pass, or set torch._functorch.config.donated_buffer = False",
    "Checkpointing is not compatible with .grad()": "reentrant activation checkpointing cannot give per-task "
    "gradients; pass use_reentrant=False to torch.utils.checkpoint",
    "When use_reentrant=True, torch.utils.checkpoint is incompatible": "reentrant activation checkpointing cannot give "
    "per-task gradients; pass use_reentrant=False to torch.utils.checkpoint",
}
"""Part of torch's message -> what it means for somebody who records, and what to do."""

"""What training under torchrun needs besides SpeechBrain's `Brain`, which wraps each module in DDP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from speechbrain.utils.distributed import is_distributed_initialized
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class AllReduceBatchNorm(nn.Module):
    """Batch normalisation with the statistics of all processes, on any device.

    `torch.nn.SyncBatchNorm` does the same on GPUs only. This layer shares parameters and buffers with the one it
    replaces, under the same names, so checkpoints do not change.

    Parameters
    ----------
    norm : torch.nn.BatchNorm1d, BatchNorm2d or BatchNorm3d
        The layer.

    Examples
    --------
    >>> norm = nn.BatchNorm1d(3)
    >>> AllReduceBatchNorm(norm).eval()(torch.ones(2, 3, 5)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(self, norm: _BatchNorm):
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.training = norm.training
        for name in NORM_TENSORS:
            value = getattr(norm, name)
            if name in ("weight", "bias"):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (batch, channels, ...); in training, each process must take part."""
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        values = x.float()  # under autocast, too
        mean, variance, count = self._statistics(values)
        self._track(mean.detach(), variance.detach(), count)
        shape = (-1, *[1] * (x.ndim - 2))
        y = (values - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            y = torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))
        return y.to(x.dtype)

    @staticmethod
    def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
        own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
        # A sum of tables with one row filled each: a gather that passes gradients.
        table = own.new_zeros(dist.get_world_size(), len(own))
        table[dist.get_rank()] = own
        means, variances, counts = all_reduce(table).split([len(mean), len(mean), 1], dim=1)
        share = counts / counts.sum()
        mean = (share * means).sum(0)
        return mean, (share * (variances + (means - mean).square())).sum(0), counts.sum()

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1), momentum)


def share_batch_statistics(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside a module by `AllReduceBatchNorm`, in place; return the module.

    Examples
    --------
    >>> share_batch_statistics(nn.Sequential(nn.BatchNorm1d(3)))
    Sequential(
      (0): AllReduceBatchNorm()
    )
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            module.add_module(name, AllReduceBatchNorm(child))
        else:
            share_batch_statistics(child)
    return module


class Callee(nn.Module):
    """Forwards calls to a module, or applies a function that may call any of its methods.

    DDP averages only gradients of what its `forward` computes; see `apply`.

    Examples
    --------
    >>> callee = Callee(nn.Linear(2, 3))
    >>> callee(torch.ones(1, 2)).shape, callee(function=lambda layer: layer.weight.shape)
    (torch.Size([1, 3]), torch.Size([3, 2]))
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *args, function: Callable | None = None, **kwargs):
        """Call the module with these arguments, or the function with the module."""
        return self.module(*args, **kwargs) if function is None else function(self.module)


def apply(module: nn.Module, function: Callable):
    """Return `function(module)`, computed inside DDP's `forward` where `module` is wrapped.

    Examples
    --------
    >>> apply(nn.Linear(2, 3), lambda layer: layer(torch.ones(1, 2)).shape)
    torch.Size([1, 3])
    """
    return module(function=function) if isinstance(module, DistributedDataParallel) else function(module)


def plain(module: nn.Module) -> nn.Module:
    """Return the module without DDP and `Callee` around it.

    Examples
    --------
    >>> layer = nn.Linear(2, 3)
    >>> plain(Callee(layer)) is plain(layer) is layer
    True
    """
    while isinstance(module, (DistributedDataParallel, Callee)):
        module = module.module
    return module


def process_count() -> int:
    """Return the number of processes that train together, 1 without torchrun."""
    return dist.get_world_size() if is_distributed_initialized() else 1


def process_index() -> int:
    """Return the index of this process among them, from 0."""
    return dist.get_rank() if is_distributed_initialized() else 0


def gather(value) -> list:
    """Return the values of all processes, in the order of their indices; all must call this.

    Examples
    --------
    >>> gather("a")
    ['a']
    """
    if process_count() == 1:
        return [value]
    values = [None] * process_count()
    dist.all_gather_object(values, value)
    return values

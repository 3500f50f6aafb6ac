"""Batch normalisation over the images of all processes, on any device.

torch's own (`nn.SyncBatchNorm`) refuses processors; this one needs nothing but a sum over
processes that gradients pass through.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


def processes() -> int:
    """Return the number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.library.custom_op("attnprobe::sum_over_processes", mutates_args=())
def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum over processes; its gradient is summed over processes too."""
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@sum_over_processes.register_fake
def _fake(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _backward(context: object, gradient: Tensor) -> Tensor:
    del context
    return sum_over_processes(gradient.contiguous())


sum_over_processes.register_autograd(_backward)


class SyncBatchNorm1d(nn.Module):
    """`nn.BatchNorm1d`, by names and values, with statistics of all processes.

    Args:
        channels: Channels of the input, [batch, channels].
        affine: Whether to learn a scale and an offset.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.eps, self.momentum = 1e-5, 0.1
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, channels]; running statistics are kept as torch keeps them."""
        if self.training:
            self.num_batches_tracked.add_(1)
        if self.training and processes() > 1:
            return self._across(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )

    def _across(self, x: Tensor) -> Tensor:
        wide = x.to(self.running_mean.dtype)
        ones = wide.new_ones(1) * len(wide)
        totals = sum_over_processes(torch.cat((wide.sum(0), ones)))
        count = totals[-1].detach()
        centred = wide - totals[:-1] / count
        # a second pass: the mean of squares less the square of the mean loses digits
        variance = sum_over_processes(centred.square().sum(0)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1)
            self.running_mean.lerp_(totals[:-1] / count, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        y = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            y = torch.addcmul(self.bias, y, self.weight) if self.bias is not None else y
        return y.to(x.dtype)

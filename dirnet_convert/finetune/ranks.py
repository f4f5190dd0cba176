"""The processes that train one network together, as torchrun starts them; one alone is the usual case."""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dirnet_convert.data.source import Shard
from dirnet_convert.errors import UsageError

# Others wait while the first one evaluates a detector, and while one compiles.
_PATIENCE = datetime.timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """This process's number among ``count``, and the device that it trains on.

    What returns a value here must be called by all processes alike.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """The part of each batch, and of the test images, that this process works on."""
        return Shard(self.rank, self.count)

    def parallel(self, network: nn.Module, *, has_unused: bool) -> nn.Module:
        """Return ``network`` so that its gradients are those of all processes' images, and its buffers the
        first one's; ``has_unused`` where not every parameter takes part in every step."""
        if self.count == 1:
            return network
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, find_unused_parameters=has_unused)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` over all processes."""
        if self.count == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total / self.count

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return, for each flag, whether one of the processes raised it."""
        if self.count == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.float32, device=self.device)
        distributed.all_reduce(raised)
        return tuple(bool(value) for value in raised.tolist())

    def gathered(self, value: Any) -> list[Any]:
        """Return every process's ``value``, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def first(self, value: Any) -> Any:
        """Return the first process's ``value``."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def copy_first(self, network: nn.Module) -> None:
        """Give ``network`` the first process's parameters and buffers."""
        if self.count > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, src=0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            self.gathered(None)


def one_process() -> Ranks:
    """Return the ranks of a training in this process alone."""
    return Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def open_ranks() -> Iterator[Ranks]:
    """Yield this process's place among those that torchrun started, joined over NCCL or Gloo; or alone.

    Raises:
        UsageError: torchrun started more processes here than there are accelerators.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield one_process()
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"torchrun started more processes than there are accelerators ({torch.cuda.device_count()}); "
                "lower --nproc-per-node, or hide them with CUDA_VISIBLE_DEVICES= to train on processors."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        with warnings.catch_warnings():
            # Of a 1x1 convolution with channels last, whose gradient is copied then: nothing one can do.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield Ranks(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()


def combined_score(ranks: Ranks, images: int, percent: float) -> float:
    """Return what ``percent`` of ``images`` is over the images of all processes."""
    right, total = map(sum, zip(*ranks.gathered((round(percent * images / 100), images)), strict=True))
    return 100 * right / total

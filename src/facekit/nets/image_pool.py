"""The image pool of CycleGAN: a discriminator also sees fakes of earlier steps (Shrivastava et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime import distributed


class ImagePool(nn.Module):
    """Up to `capacity` earlier images; kept as buffers, so that a resumed run continues with the same pool.

    Until the pool is full an image is stored and returned; afterwards, with probability 1/2, a stored image is returned
    and the new one takes its place. Several processes share one pool.
    """

    images: Tensor
    count: Tensor

    def __init__(self, capacity: int = 50, size: int = 256, channels: int = 3):
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.zeros(capacity, channels, size, size))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Exchange images ([N, C, H, W]) with the pool, one after another; returns as many.

        Nothing is read back from the device, so the host does not wait.
        """
        if self.capacity == 0 or images.is_meta:  # on the meta device only shapes are of interest
            return images
        every = distributed.gather(images).to(self.images.dtype)
        number, place = len(every), every.device
        count = self.count + torch.arange(number, device=place)  # how many images came before each
        filling = count < self.capacity
        draw = distributed.of_first(torch.rand(2, number, device=place))
        older = ~filling & (draw[0] < 0.5)
        slots = torch.where(filling, count, (draw[1] * self.capacity).long())
        self.count.copy_((self.count + number).clamp(max=self.capacity))
        out = []
        for i, (image, slot) in enumerate(zip(every, slots.split(1), strict=True)):
            stored = self.images.index_select(0, slot)[0]
            self.images.index_copy_(0, slot, torch.where(filling[i] | older[i], image, stored)[None])
            out.append(torch.where(older[i], stored, image))
        mine = torch.stack(out)[distributed.rank() * len(images) :][: len(images)]
        return mine.to(images.dtype).contiguous(memory_format=torch.channels_last)

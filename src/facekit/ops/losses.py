"""Losses as pure functions of tensors; weights are never inside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def lsgan(prediction: Tensor, real: bool) -> Tensor:
    """mean((D - 1)^2) for real, mean(D^2) for fake, without a half (Mao et al. 2017, eq. 9)."""
    prediction = wide(prediction)
    return (prediction - 1).square().mean() if real else prediction.square().mean()


def binary(logits: Tensor, positive: bool) -> Tensor:
    """Mean binary cross-entropy of logits against all ones or all zeros."""
    logits = wide(logits)
    return F.softplus(-logits if positive else logits).mean()


def l1(x: Tensor, y: Tensor) -> Tensor:
    """mean(|x - y|)."""
    return (wide(x) - wide(y)).abs().mean()


def hinge_g(fake: Tensor) -> Tensor:
    """-mean(D(fake)) (Lim and Ye 2017, eq. 5)."""
    return -wide(fake).mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake))) (Lim and Ye 2017, eq. 4)."""
    return F.relu(1 - wide(real)).mean() + F.relu(1 + wide(fake)).mean()


def patch_nce(query: Tensor, key: Tensor, tau: float = 0.07) -> Tensor:
    """PatchNCE of unit vectors [N, S, C] (Park et al. 2020, eq. 3): place s of the query belongs to place s of the key.

    The other places of the same image are the negatives; no gradient reaches the key.
    """
    logits = torch.bmm(wide(query), wide(key.detach()).transpose(1, 2)) / tau  # [N, S, S]
    places = torch.arange(query.shape[1], device=query.device).repeat(len(query))
    return F.cross_entropy(logits.flatten(0, 1), places)


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """mean(1 - cos(x, y)) of vectors [N, d]."""
    return 1 - F.cosine_similarity(wide(x), wide(y), dim=1).mean()


def dice(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice loss, 1 - mean over classes of 2 |p t| / (|p| + |t|), smoothed by 1 (Milletari et al. 2016, eq. 2).

    `probabilities` [N, C, H, W], `labels` [N, H, W]; each class is summed over the batch.
    """
    p = wide(probabilities)
    truth = F.one_hot(labels, p.shape[1]).movedim(-1, 1).to(p.dtype)
    both, sums = (p * truth).sum((0, 2, 3)), (p + truth).sum((0, 2, 3))
    return 1 - ((2 * both + 1) / (sums + 1)).mean()


def l2(x: Tensor, y: Tensor) -> Tensor:
    """mean((x - y)^2)."""
    return (wide(x) - wide(y)).square().mean()


def kl(mean: Tensor) -> Tensor:
    """mean(mean^2): twice the divergence of N(mean, 1) from N(0, 1), as UNIT's code counts it (Liu et al. 2017)."""
    return wide(mean).square().mean()


def normalised_l2(x: Tensor, y: Tensor) -> Tensor:
    """mean((IN(x) - IN(y))^2) of feature maps [N, C, H, W]: UNIT's distance of VGG features (as in its code)."""
    return l2(*(F.group_norm(wide(z), z.shape[1]) for z in (x, y)))  # see blocks.InstanceNorm2d


def direction_distance(x: Tensor, y: Tensor) -> Tensor:
    """mean(|u - v|^2), u and v the features x and y [N, C, ...] at length 1 in every place.

    Zhang et al. 2018, eq. 1, without its weights: from 0 to 4, however large the features are.
    """
    u, v = F.normalize(wide(x), dim=1), F.normalize(wide(y), dim=1)
    return (u - v).square().sum(1).mean()


def wasserstein_g(fake: Tensor) -> Tensor:
    """-mean(D(fake)) (Arjovsky et al. 2017)."""
    return -wide(fake).mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """mean(D(fake)) - mean(D(real)): minus the critic's estimate of the distance (Arjovsky et al. 2017, eq. 2)."""
    return wide(fake).mean() - wide(real).mean()


def gradient_penalty(judged: Tensor, x: Tensor) -> Tensor:
    """mean((|gradient of D by x| - 1)^2) over the images x [N, ...] (Gulrajani et al. 2017, eq. 3).

    `judged` [N, ...] is the critic's output for x, computed without autocast; several values of an image count as their
    mean. x requires a gradient. The result is differentiable by the critic's weights.
    """
    total = judged.flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def gram(x: Tensor) -> Tensor:
    """Gram matrices [N, C, C] of features [N, C, H, W], over H W C: correlations of channels (Gatys et al. 2016)."""
    flat = wide(x).flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def grey(x: Tensor) -> Tensor:
    """Return images [N, 3, H, W] in grey, in three equal channels; weights 0.299, 0.587, 0.114 (ITU-R BT.601)."""
    r, g, b = wide(x).unbind(1)
    return (0.299 * r + 0.587 * g + 0.114 * b)[:, None].expand(-1, 3, -1, -1)


def yuv(x: Tensor) -> Tensor:
    """Return images [N, 3, H, W] in [-1, 1] as Y in [0, 1], U and V around 0 (BT.601, as TensorFlow's rgb_to_yuv)."""
    rows = [[0.299, 0.587, 0.114], [-0.14714119, -0.28886916, 0.43601035], [0.61497538, -0.51496512, -0.10001026]]
    r, g, b = ((wide(x) + 1) / 2).unbind(1)
    return torch.stack([of_r * r + of_g * g + of_b * b for of_r, of_g, of_b in rows], 1)


def colour(x: Tensor, y: Tensor) -> Tensor:
    """mean|Y| + Huber(U) + Huber(V) of two images' differences in YUV, delta 1 (AnimeGAN, Chen et al. 2020)."""
    (y1, u1, v1), (y2, u2, v2) = yuv(x).unbind(1), yuv(y).unbind(1)
    return (y1 - y2).abs().mean() + F.huber_loss(u1, u2) + F.huber_loss(v1, v2)


def variation(x: Tensor) -> Tensor:
    """Half the mean squared difference of neighbouring px, down plus across (AnimeGANv2's total variation)."""
    x = wide(x)
    return ((x[:, :, 1:] - x[:, :, :-1]).square().mean() + (x[..., 1:] - x[..., :-1]).square().mean()) / 2


def wide(x: Tensor) -> Tensor:
    """Return x in at least 32 bits: sums of 16-bit numbers lose digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

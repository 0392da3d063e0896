"""A first layer that whitens: filters by which small patches of the training images become uncorrelated, of equal size.

After hlb-CIFAR10 (Page 2019, Balsam 2023) and airbench (Jordan 2024, arXiv 2404.00498): the filters are the eigenvectors of
the patches' second moments, each divided by the root of its eigenvalue, and their negatives. They are not trained.

Pixels are whole numbers, so the sums of their products are too and fit into a double without rounding: a CPU and a GPU, with
any number of threads, get the same ones. The filters follow from them on the CPU.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

NUM_IMAGES = 5000  # of the training set, as they come; their products stay below 2^53 for images of up to 5,000 x 5,000
EPS = 5e-4  # added to the eigenvalues: what hardly varies is not blown up
CHUNK = 2**22  # values of patches at once


class Whitening(nn.Conv2d):
    """A convolution to 2 x size x size x channels filters whose weight is set once by `set_from`; its bias is trained."""

    def __init__(self, channels: int, size: int = 2) -> None:
        super().__init__(channels, 2 * channels * size * size, size)
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def set_from(self, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the filters by training images, uint8 [n, H, W, channels], that are normalised by mean and std (0..1)."""
        size = self.kernel_size[0]
        self.weight.copy_(whitening_filters(images, mean, std, size))


def whiten(model: nn.Module, images: Callable[[], Tensor], mean: Sequence[float], std: Sequence[float]) -> None:
    """Set the filters of each layer of the model that whitens, by the training images that are asked for where there is one."""
    for module in model.modules():
        if isinstance(module, Whitening):
            module.set_from(images(), mean, std)


def whitening_filters(images: Tensor, mean: Sequence[float], std: Sequence[float], size: int) -> Tensor:
    """Filters, float32 [2 k, channels, size, size] with k = channels x size x size, on the CPU.

    Filter i is v_i / sqrt(w_i + EPS), smallest eigenvalue w first, filter k + i its negative. The sign of v_i is that with
    which its largest element is positive.
    """
    count, channels = _num_patches(images, size), images.shape[3]
    sums, products = _sums(images, size)
    means = 255 * torch.tensor(mean, dtype=torch.float64).repeat(size * size)
    stds = 255 * torch.tensor(std, dtype=torch.float64).repeat(size * size)
    shifts = torch.outer(sums / count, means)
    moments = (products / count - shifts - shifts.T + torch.outer(means, means)) / torch.outer(stds, stds)
    values, vectors = torch.linalg.eigh(moments)
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    filters = (vectors * signs / (values + EPS).sqrt()).T
    filters = filters.reshape(-1, size, size, channels).permute(0, 3, 1, 2)
    return torch.cat((filters, -filters)).float()


def _num_patches(images: Tensor, size: int) -> int:
    number, height, width, _ = images.shape
    return number * (height - size + 1) * (width - size + 1)


def _sums(images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The exact sums over all patches of their values [k] and of products of two values [k, k], k by row, column, channel."""
    _, height, width, channels = images.shape
    length = size * size * channels
    sums = torch.zeros(length, dtype=torch.float64, device=images.device)
    products = torch.zeros(length, length, dtype=torch.float64, device=images.device)
    for part in images.split(max(1, CHUNK // (height * width * length))):
        places = [(row, column) for row in range(size) for column in range(size)]
        windows = [part[:, row : row + height - size + 1, column : column + width - size + 1] for row, column in places]
        patches = torch.cat(windows, dim=3).reshape(len(part), -1, length).double()
        sums += patches.sum((0, 1))
        products += (patches.mT @ patches).sum(0)
    return sums.cpu(), products.cpu()

"""A small vision transformer, after ViT (Dosovitskiy et al. 2021): 6 layers of width 192 with 3 heads, 2.7 M weights.

Norms stand before has_orders and MLP, positions are learned, and the patches' mean goes to the last layer, as in the
plain baseline of Beyer et al. 2022: no class token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTH, WIDTH, HEADS = 6, 192, 3
PATCH_SIDES = (16, 8, 4)


def patch_side(height: int, width: int) -> int | None:
    """The largest patch that leaves 8 x 8 of them, at least 4 pixels wide; None where the images do not divide by it."""
    side = next((side for side in PATCH_SIDES if min(height, width) >= 8 * side), PATCH_SIDES[-1])
    return None if height % side or width % side else side


class Block(nn.Module):
    """Attention between the patches, then an MLP on each; both are added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # [3, b, heads, patches, d]
        attended = F.scaled_dot_product_attention(*qkv.unbind())
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class ViT(nn.Module):
    """Logits [b, num_classes] from images [b, channels, H, W] whose sides are multiples of the patch's."""

    def __init__(
        self, num_classes: int, image_shape: tuple[int, int, int], side: int, dropout: float, width: int = WIDTH
    ) -> None:
        super().__init__()
        height, columns, channels = image_shape
        self.patches = nn.Conv2d(channels, width, side, stride=side)
        self.positions = nn.Parameter(torch.randn(height // side * (columns // side), width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(DEPTH)))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = self.norm(self.blocks(x)).mean(1)
        return self.head(self.dropout(x))  # type: ignore[no-any-return]

"""A task of one file: a transformer that learns the characters of a text. From the folder that holds `jobs`:

    raylr train --task jobs.examples.language_model:LanguageModel
    raylr train --task jobs.examples.language_model:LanguageModel --task.text ~/shakespeare.txt --epochs 4 --workers 4

Without --task.text it reads what every Python has: the source of argparse, 100 kB of English and code.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import raylr


class LanguageModel(raylr.Task):
    """Predict the next character; an example is a window of the text, and the last tenth of the text is the test."""

    @dataclass(frozen=True)
    class Settings:
        text: Path | None = field(default=None, metadata={"help": "a text file [the source of argparse]"})
        context: int = field(default=64, metadata={"help": "characters that the model sees"})
        width: int = field(default=96, metadata={"help": "of the hidden layers"})
        layers: int = field(default=2, metadata={"help": "transformer blocks"})
        heads: int = field(default=4, metadata={"help": "of the attention"})
        dropout: float = field(default=0.0, metadata={"help": "probability in each block"})

    defaults: ClassVar = {
        "optimizer.name": "adamw", "optimizer.beta2": 0.99, "optimizer.weight_decay": 0.1,
        "lr.base": 3e-3, "lr.reference_batch": 64, "lr.warmup": "0.1dur", "lr.shape": "cosine(floor=0.1)",
        "batch.global_size": 64, "batch.micro_size": 16, "loss.clip_norm": 1.0, "epochs": 12,
    }  # fmt: skip
    sums = ("accuracy",)

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        text = (settings.text or Path(argparse.__file__)).read_text(encoding="utf-8")
        characters = sorted(set(text))
        places = {character: place for place, character in enumerate(characters)}
        codes = torch.tensor([places[character] for character in text])
        self.num_characters, context = len(characters), settings.context
        self.train_codes, self.test_codes = codes[: len(codes) * 9 // 10], codes[len(codes) * 9 // 10 :]
        self.num_train = (len(self.train_codes) - 1) // context
        self.num_test = (len(self.test_codes) - 1) // context

    def model(self) -> nn.Module:
        return Transformer(self.num_characters, self.settings)

    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        shifts = (epochs * 29) % self.settings.context  # other windows in each epoch
        most = len(self.train_codes) - 1 - self.settings.context
        return self.windows(self.train_codes, (ids * self.settings.context + shifts).clamp(max=most))

    def test_batch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.windows(self.test_codes, ids * self.settings.context)

    def windows(self, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Characters [b, context] and those that follow them."""
        places = starts[:, None] + torch.arange(self.settings.context)
        return codes[places], codes[places + 1]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        characters, following = batch
        logits = model(characters).float()
        loss = F.cross_entropy(logits.flatten(0, 1), following.flatten())
        return loss, {"accuracy": right(logits, following)}

    def test(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        characters, following = batch
        logits = model(characters).float()
        each = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none").view_as(following)
        return {"loss": each.mean(1).sum(), "accuracy": right(logits, following)}


def right(logits: Tensor, following: Tensor) -> Tensor:
    """The sum over the windows of the share of characters that are guessed."""
    return (logits.argmax(2) == following).float().mean(1).sum()


class Transformer(nn.Module):
    """Logits [b, context, characters] of the next character."""

    def __init__(self, num_characters: int, settings: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_characters, settings.width)
        self.places = nn.Parameter(0.02 * torch.randn(settings.context, settings.width))
        block = nn.TransformerEncoderLayer(
            settings.width,
            settings.heads,
            4 * settings.width,
            settings.dropout,
            F.gelu,
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            block, settings.layers, nn.LayerNorm(settings.width), enable_nested_tensor=False
        )
        self.head = nn.Linear(settings.width, num_characters)

    def forward(self, characters: Tensor) -> Tensor:
        length = characters.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=characters.device)
        hidden = self.blocks(self.embed(characters) + self.places[:length], mask, is_causal=True)
        logits: Tensor = self.head(hidden)
        return logits

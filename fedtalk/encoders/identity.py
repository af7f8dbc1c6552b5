"""Identity: an embedding of a face frame whose cosine tells whether two frames show one person."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.data.pixels import to_unit
from fedtalk.encoders.appearance import vary_appearance
from fedtalk.encoders.face_module import FaceModule, draw_integer
from fedtalk.encoders.shipped import ShippedNetwork, as_pictures, convolution
from fedtalk.training.module import Prepared

PIXELS = 64
"""Height and width at which faces are compared."""


class IdentityEncoder(ShippedNetwork):
    """Embeds aligned face frames; differentiable, so that it can be an objective as well as a measure.

    Only an oval in the middle of the frame is seen, in which `fedtalk.data.framing` puts the face: background and
    clothes say nothing about who it is.
    """

    kind = "identity"

    window: Tensor

    def __init__(self, channels: Sequence[int] = (24, 48, 96, 128), dimension: int = 128) -> None:
        """
        Args:
            channels: width of the four levels, each of half the height and width of the one before; multiples of 8.
            dimension: length of an embedding.
        """
        super().__init__(channels=list(channels), dimension=dimension)
        first, second, third, fourth = channels
        self.layers = nn.Sequential(
            convolution(3, first),
            convolution(first, second),
            convolution(second, third),
            convolution(third, fourth),
            convolution(fourth, dimension, stride=1),
        )
        self.out = nn.Linear(dimension * 4, dimension)
        self.register_buffer("window", _oval(), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) float in [-1, 1], any size -> (N, 128) of unit length.

        Raises:
            ArtifactError: frames of another shape or dtype.
        """
        picture = as_pictures(frames, "the identity encoder")
        if picture.shape[-2:] != (PIXELS, PIXELS):
            picture = F.interpolate(picture, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
        hidden = F.adaptive_avg_pool2d(self.layers(picture * self.window), 2)
        return F.normalize(self.out(hidden.flatten(1)), dim=1)


def _oval() -> Tensor:
    """(64, 64): 1 inside an ellipse around an aligned face, 0 outside, soft between."""
    grid = (torch.arange(PIXELS) + 0.5) / PIXELS
    x, y = grid[None, :], grid[:, None]
    radius = (((x - 0.5) / 0.36) ** 2 + ((y - 0.48) / 0.44) ** 2).sqrt()
    return ((1.05 - radius) / 0.1).clamp(0, 1)


class IdentityModule(FaceModule):
    """Learns identity from people with several frames each, by supervised contrast (Khosla et al. 2020, eq. 2).

    ``L = -mean_i mean_p log(exp(z_i . z_p / t) / sum_a exp(z_i . z_a / t))``, p the other frames of the same person.
    Frames are recoloured as another camera would, moved, flipped, blurred and disturbed, so that a generated frame
    which is a little soft still matches.
    """

    network: IdentityEncoder

    def __init__(
        self,
        channels: Sequence[int] = (24, 48, 96, 128),
        dimension: int = 128,
        frames_per_person: int = 4,
        temperature: float = 0.1,
    ) -> None:
        """
        Args:
            channels: see `IdentityEncoder`.
            dimension: see `IdentityEncoder`.
            frames_per_person: frames of each person in a batch, from any of the person's clips.
            temperature: ``t`` above.
        """
        super().__init__()
        self.save_hyperparameters()
        self.network = IdentityEncoder(channels, dimension)

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        people: dict[int, list[Tensor]] = {}
        for clip in clips:
            people.setdefault(int(clip["person"]), []).append(clip["frames"])
        names = sorted(people)
        each = self.hparams["frames_per_person"]
        chosen = torch.randperm(len(names), generator=generator)[: max(2, size // each)].tolist()
        frames, labels = [], []
        for index in chosen:
            takes = people[names[index]]
            for _ in range(each):
                take = takes[draw_integer(len(takes), generator)]
                frames.append(take[draw_integer(len(take), generator)])
                labels.append(index)
        picture = _move(to_unit(torch.stack(frames)), generator)
        picture = vary_appearance(picture[:, None], generator, hue=0.15, colour=0.1, blur=1.3, noise=0.12)[:, 0]
        return {"frames": picture, "person": torch.tensor(labels)}

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        return {"contrast": _contrast(self.network(batch["frames"]), batch["person"], self.hparams["temperature"])}

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Mean cosine of pairs of frames of one person and of two people, and the equal error rate of a threshold.

        Every fifth frame of every clip; pairs within a person come from different clips where the person has several.
        """
        frames = torch.cat([clip["frames"][::5] for clip in clips])
        person = torch.cat([clip["person"].repeat(len(clip["frames"][::5])) for clip in clips])
        take = torch.cat([torch.full((len(clip["frames"][::5]),), i) for i, clip in enumerate(clips)])
        with torch.no_grad():
            parts = [self.network(to_unit(part.to(self.device))).cpu() for part in frames.split(256)]
        cosine = torch.cat(parts) @ torch.cat(parts).T
        same = person[:, None] == person
        apart = take[:, None] != take
        pairs = same & apart if (same & apart).any() else same & ~torch.eye(len(same), dtype=torch.bool)
        within, across = cosine[pairs], cosine[~same]
        return {
            "within_cosine": float(within.mean()),
            "across_cosine": float(across.mean()),
            "equal_error_rate": equal_error_rate(within, across),
        }


def equal_error_rate(within: Tensor, across: Tensor) -> float:
    """Share of wrong decisions at the threshold where both kinds of error are equally frequent.

    Args:
        within: scores of pairs that belong together.
        across: scores of pairs that don't.

    >>> round(equal_error_rate(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([0.4, 0.1, 0.0])), 4)
    0.3333
    """
    scores = torch.cat([within, across]).double()
    labels = torch.cat([torch.ones(len(within)), torch.zeros(len(across))])
    labels = labels[scores.argsort(descending=True)]
    # Threshold after the k best scores: what is missed, and what is let in wrongly.
    missed = 1 - labels.cumsum(0) / len(within)
    accepted = (1 - labels).cumsum(0) / len(across)
    best = (missed - accepted).abs().argmin()
    return float((missed[best].double() + accepted[best].double()) / 2)


def _contrast(embedded: Tensor, person: Tensor, temperature: float) -> Tensor:
    myself = torch.eye(len(person), dtype=torch.bool, device=embedded.device)
    logits = (embedded @ embedded.T / temperature).masked_fill(myself, -torch.inf)
    log_share = logits - logits.logsumexp(1, keepdim=True)
    same = (person[:, None] == person) & ~myself
    return -(log_share.masked_fill(~same, 0).sum(1) / same.sum(1).clamp_min(1)).mean()


def _move(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 5 %, scale by up to 8 %, turn by up to 0.1 rad; half of the pictures mirrored."""
    count = len(picture)
    draw = 2 * torch.rand(count, 5, generator=generator) - 1
    scale, turn = 1 + 0.08 * draw[:, 0], 0.1 * draw[:, 1]
    cos, sin = scale * turn.cos(), scale * turn.sin()
    mirror = draw[:, 2].sign()
    shift = 0.1 * draw[:, 3:]  # the grid is two units wide
    rows = [
        torch.stack([mirror * cos, -sin, shift[:, 0]], -1),
        torch.stack([mirror * sin, cos, shift[:, 1]], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)

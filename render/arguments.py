"""Checks of the arguments of every renderer."""

from __future__ import annotations

from math import isfinite

import numpy as np

MOST_PEOPLE = 64
"""Most meshes in one picture: a sample's 16 bits hold 256 levels of light (`kernels.LEVELS`) and
four of opacity for each."""


def check_image(image: np.ndarray, alpha: float) -> None:
    """Check the image to draw on.

    Raises:
        ValueError: ``image`` is not RGB uint8 (H, W, 3), or ``alpha`` is not from 0 to 1.
    """
    is_bytes = isinstance(image, np.ndarray) and image.dtype == np.uint8
    check_pixels(np.shape(image), is_bytes, alpha)


def check_pixels(shape: tuple[int, ...], is_bytes: bool, alpha: float) -> None:
    """As `check_image`, for an image of this shape; ``is_bytes`` says whether it holds uint8."""
    if not is_bytes:
        raise ValueError("the image to draw on is an array of uint8")
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"the image to draw on is (H, W, 3), not {tuple(shape)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is from 0 to 1, not {alpha}")


def check_colors(colors: np.ndarray, people: int) -> np.ndarray:
    """Return ``colors`` as float64 (P, 3).

    Raises:
        ValueError: There is not one colour for each of ``people``, or a value is not from 0 to 1.
    """
    colors = np.asarray(colors, np.float64)
    if colors.shape != (people, 3):
        raise ValueError(f"colours are (P, 3) = ({people}, 3), not {colors.shape}")
    # For a few numbers that takes less time than numpy's comparisons.
    if not all(0 <= value <= 1 for value in colors.ravel().tolist()):
        raise ValueError("colours are from 0 to 1")
    return colors


def check_opacity(opacity: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the opacity of each vertex as float32 (P, V); None where all are opaque.

    Raises:
        ValueError: It has another shape than ``shape``, the meshes' (P, V), or a value is not from
            0 to 1.
    """
    if opacity is None:
        return None
    opacity = np.require(opacity, np.float32, ["C", "W"])
    if opacity.shape != shape:
        raise ValueError(f"opacity is (P, V) = {shape}, not {opacity.shape}")
    if not ((opacity >= 0) & (opacity <= 1)).all():
        raise ValueError("opacity is from 0 to 1")
    return None if (opacity == 1).all() else opacity


def check_meshes(
    vertices_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the meshes and the camera as the kernels need them.

    All arrays are contiguous and writable, because numba compiles again for arrays that are not.

    Returns:
        Vertices (P, V, 3) float32, finite; faces (F, 3) int32 that point into V; intrinsics (3, 3)
        float64, finite, upper triangular, with focal lengths above 0.

    Raises:
        ValueError: An argument cannot be converted to that.
    """
    vertices = check_vertices(vertices_m)
    faces = check_faces(faces, vertices.shape[1] if len(vertices) else None)
    return vertices, faces, check_intrinsics(intrinsics)


def check_vertices(vertices_m: np.ndarray) -> np.ndarray:
    """Return the meshes' vertices as `check_meshes` does."""
    vertices = np.require(vertices_m, np.float32, ["C", "W"])
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices are (P, V, 3), not {vertices.shape}")
    check_people(len(vertices))
    if not np.isfinite(vertices).all():
        raise ValueError("a mesh has vertices that are not finite")
    return vertices


def check_people(people: int) -> None:
    """Check the number of meshes in a picture. Raises ValueError if it is too large."""
    if people > MOST_PEOPLE:
        raise ValueError(f"at most {MOST_PEOPLE} people can be drawn, not {people}")


def check_faces(faces: np.ndarray, vertices: int | None) -> np.ndarray:
    """Return triangles as `check_meshes` does; ``vertices`` is V, None where there is no mesh."""
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise ValueError(f"faces are integers (F, 3), not {faces.dtype} {faces.shape}")
    if vertices is not None and faces.size and not 0 <= faces.min() <= faces.max() < vertices:
        raise ValueError(f"faces point beyond the mesh's {vertices} vertices")
    return np.require(faces, np.int32, ["C", "W"])


def check_intrinsics(intrinsics: np.ndarray) -> np.ndarray:
    """Return a camera as `check_meshes` does."""
    k = np.require(intrinsics, np.float64, ["C", "W"])
    if k.shape != (3, 3) or not all(map(isfinite, k.ravel().tolist())):
        raise ValueError("intrinsics are a finite (3, 3)")
    (fx, _, _), (below, fy, _), last = k.tolist()
    if fx <= 0 or fy <= 0 or below or last != [0, 0, 1]:
        raise ValueError(
            "intrinsics have focal lengths above 0 and are otherwise [. . .; 0 . .; 0 0 1]"
        )
    return k

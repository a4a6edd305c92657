"""A reader of BVH files that shares nothing with the writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass
class Node:
    """A joint or an end of the hierarchy."""

    name: str
    parent: int
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


@dataclass
class Motion:
    """A file: its hierarchy, and a row of channels a frame."""

    nodes: list[Node]
    frame_time_s: float
    rows: np.ndarray

    def places(self) -> dict[str, np.ndarray]:
        """Forward kinematics: the world positions (frames, 3) of every joint and end."""
        places, turns, column = [], [], 0
        for node in self.nodes:
            own = np.tile(node.offset, (len(self.rows), 1))
            turn = Rotation.from_matrix(np.tile(np.eye(3), (len(self.rows), 1, 1)))
            for channel in node.channels:
                values, axis = self.rows[:, column], channel[0]
                if channel.endswith("position"):
                    own[:, "XYZ".index(axis)] += values
                else:
                    turn = turn * Rotation.from_euler(axis, values[:, None], degrees=True)
                column += 1
            if node.parent >= 0:
                own = places[node.parent] + turns[node.parent].apply(own)
                turn = turns[node.parent] * turn
            places.append(own)
            turns.append(turn)
        assert column == self.rows.shape[1]
        return {node.name: place for node, place in zip(self.nodes, places)}


def read_bvh(path: Path) -> Motion:
    """Return a file's hierarchy and motion."""
    words = path.read_text().split()
    at, nodes, open_nodes = 1, [], []
    assert words[0] == "HIERARCHY"
    while words[at] != "MOTION":
        word = words[at]
        if word in ("ROOT", "JOINT", "End"):
            parent = open_nodes[-1] if open_nodes else -1
            name = words[at + 1] if word != "End" else f"{nodes[parent].name} end"
            nodes.append(Node(name, parent))
            at += 2
        elif word == "{":
            open_nodes.append(len(nodes) - 1)
            at += 1
        elif word == "}":
            open_nodes.pop()
            at += 1
        elif word == "OFFSET":
            nodes[-1].offset = np.array(words[at + 1 : at + 4], float)
            at += 4
        else:
            assert word == "CHANNELS"
            count = int(words[at + 1])
            nodes[-1].channels = words[at + 2 : at + 2 + count]
            at += 2 + count
    assert open_nodes == []
    assert [words[at + 1], words[at + 3], words[at + 4]] == ["Frames:", "Frame", "Time:"]
    frames, frame_time_s = int(words[at + 2]), float(words[at + 5])
    rows = np.array(words[at + 6 :], float).reshape(frames, -1)
    return Motion(nodes, frame_time_s, rows)

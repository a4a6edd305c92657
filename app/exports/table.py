"""A recording as a pandas table, for notebooks and statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.exports.angles import ANGLES, joint_angles_deg
from app.exports.recording import Recording, Track
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.core.world import Up, World

if TYPE_CHECKING:
    import pandas

_POINT_COLUMNS = [f"{joint}_{axis}_m" for joint in JOINT_NAMES for axis in "xyz"]
_SEEN_COLUMNS = [f"{joint}_visibility" for joint in JOINT_NAMES]
_ANGLE_COLUMNS = [f"{angle}_deg" for angle in ANGLES]


def table(recording: Recording, up: Up | None = None) -> pandas.DataFrame:
    """Return a pandas table with a row for each body in each frame, sorted by track, then frame.

    Its columns are ``frame``, ``pts_s`` and ``track``; ``JOINT_x_m``, ``JOINT_y_m``, ``JOINT_z_m``
    for each of SMPL's 24 joints (`JOINT_NAMES`), metres; ``JOINT_visibility``, 0 to 1; and
    ``ANGLE_deg`` for each of `app.exports.angles.ANGLES`, NaN where the angle is not seen or not
    defined. A frame in which a person was not seen has no row.

    Args:
        recording: What `read_recording` returned.
        up: None for the camera's axes (x right, y down, z forward), as in the file; "y" or "z" for
            the recording's world with that axis up (`Recording.world`).

    Raises:
        RuntimeError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise RuntimeError("a table needs pandas: pip install 'bodystream[notebook]'") from None
    world = World(np.eye(3)) if up is None else recording.world
    return pandas.concat(
        [_track_table(track, world, up or "z") for track in recording.tracks], ignore_index=True
    )


def _track_table(track: Track, world: World, up: Up) -> pandas.DataFrame:
    import pandas

    facts = {"frame": track.frame, "pts_s": track.pts_s, "track": track.id}
    points = world.points(track.joints_m, up)
    return pandas.concat(
        [
            pandas.DataFrame(facts),
            pandas.DataFrame(points.reshape(len(points), -1), columns=_POINT_COLUMNS),
            pandas.DataFrame(track.joint_visibility, columns=_SEEN_COLUMNS),
            pandas.DataFrame(joint_angles_deg(track), columns=_ANGLE_COLUMNS),
        ],
        axis=1,
    )

"""Which parts of a picture the detectors look at in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.perception.blazepose.detector import INPUT
from pipeline.perception.blazepose.resample import Box, parts, tiles
from pipeline.perception.blazepose.roi import Roi

EAGER_PASSES = 4
"""First passes, which search the picture and all large tiles: one frame may be blurred."""
_LOST_MARGIN = 1.6
"""Side of the square around a lost person that is searched, in sides of its last ROI."""

Views = tuple[list[Box], list[Box]]
"""The parts for BlazePose's detector, and those for the second detector."""


def views_of(
    size: tuple[int, int],
    turn: int,
    *,
    places_left: bool,
    all_present: bool,
    lost: Sequence[Roi] = (),
    second: bool = False,
) -> Views:
    """Return the parts of a picture to look at.

    At first the whole picture and all large tiles. Later the two detectors take turns at the whole
    picture and, while there are free places, at one tile after another; without a second detector
    BlazePose's alternates between both. An elongated picture has parts instead of the whole, and
    later only one of them in turn. The surroundings of the first lost person are searched in every
    pass.

    Args:
        size: (H, W) of the picture.
        turn: Passes so far; 0 where nothing is known.
        places_left: Whether more people could be followed.
        all_present: Whether there are people and none is missed.
        lost: The last ROIs of people who were lost, the most important first.
        second: Whether there is a second detector.
    """
    height, width = size
    wholes = parts(height, width)
    # Enlarging a tile shows no more, so small pictures have none.
    levels = tiles(height, width, INPUT)
    around = [_around(roi, size) for roi in lost[:1]]
    if turn == 0:
        large = levels[0] if levels else []
        every = [tile for level in levels for tile in level]
        return [*wholes, *every], [*wholes, *large] if second else []
    if turn < EAGER_PASSES:
        near = [*wholes, *levels[0]] if places_left and levels else wholes
        return [*near, *around], [*wholes, *around] if second else []
    # Two turns for each part: every other turn may belong to a tile alone.
    whole = [wholes[turn // 2 % len(wholes)]]
    with_tiles = places_left and bool(levels)
    if not second:
        tile = [_tile_in_turn(levels, turn)] if with_tiles else []
        return [*(tile if tile and all_present and turn % 2 else whole + tile), *around], []
    if around or not all_present:
        tile = [_tile_in_turn(levels, turn // 2)] if with_tiles else whole
        first, other = (tile, whole) if turn % 2 else (whole, tile)
        return [*first, *around], [*other, *around]
    # In four turns each detector sees the whole picture once, and the same tile once.
    step, cycle = (turn % 4, turn // 4) if with_tiles else (turn % 2 * 2, turn // 2)
    view = [_tile_in_turn(levels, cycle) if step % 2 else wholes[cycle % len(wholes)]]
    return (view, []) if step in (0, 3) else ([], view)


def _tile_in_turn(levels: list[list[Box]], turn: int) -> Box:
    """The tile of this turn: large ones get two turns of three, since nearer people matter more."""
    level = levels[-1] if turn % 3 == 2 else levels[0]
    # Each level counts its own turns, so that no tile is left out.
    count = turn // 3 if turn % 3 == 2 else turn - turn // 3
    return level[count % len(level)]


def _around(roi: Roi, size: tuple[int, int]) -> Box:
    """The square around a lost person, inside the picture where it fits."""
    height, width = size
    side = min(round(_LOST_MARGIN * roi.side), width, height)
    x = min(max(round(roi.x - side / 2), 0), width - side)
    y = min(max(round(roi.y - side / 2), 0), height - side)
    return x, y, side, side

"""The pipeline as a library: print where everybody's right wrist is, frame by frame.

python samples/library.py samples/pitch.mp4
"""

import sys

from bodystream import JOINT_NAMES, stream

WRIST = JOINT_NAMES.index("right_wrist")

if len(sys.argv) != 2:
    sys.exit(__doc__)

with stream(sys.argv[1], people=2) as run:
    for frame, bodies in run:
        for track, joints_m in zip(bodies.track, bodies.joints_m):
            x, y, z = joints_m[WRIST]
            print(f"{frame.pts_s:7.3f} s  person {track}: {x:+.2f} {y:+.2f} {z:+.2f} m")

"""Windows of a clip's frames, and the people that a perceiver finds in them."""

from __future__ import annotations

import av

from pipeline.core.frame import Frame, Window


def windows_of(frames, key=0):
    parts = [frames[k : k + 4] for k in range(0, len(frames), 4)]
    return [Window(tuple(p), min(key, len(p) - 1), k == 0) for k, p in enumerate(parts)]


def track_rois(perceiver, windows):
    """Return the people of every frame."""
    memory, out = None, []
    for window in windows:
        people, memory = perceiver.decode(perceiver.embed(window, memory), window)
        out += people
    return out


def frames_of(path, count=None, name="clip"):
    out = []
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index == count:
                break
            out.append(Frame(index, name, 0, index / 30, picture.to_ndarray(format="rgb24")))
    return out

"""Makes the perceivers that measure people with SAM 3D Body."""

from __future__ import annotations

from dataclasses import replace

from pipeline.body.mhr_surface import surface_table
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.gpu.engine import missing
from pipeline.perception.base import Perceiver, PerceiverOptions
from pipeline.perception.blazepose import make as blazepose
from pipeline.perception.sam3d_keyframe import NEIGHBOURS, PROMPTS, KeyFramePeople
from pipeline.perception.sam3d_people import Sam3dPeople
from pipeline.perception.top_down import make_top_down
from pipeline.sam3d.checkpoint import load_sam3d
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.release import find_release


def make(options: PerceiverOptions) -> Perceiver:
    """Return the perceiver that measures people with SAM 3D Body.

    Raises:
        WeightsError: Its files are not there, or BlazePose's, which find the people.
        CheckpointError: A file is not what it should be.
        RuntimeError: A package is not installed.
    """
    files = find_release(options.model, options.model_folder)
    progress = options.on_progress or (lambda name, done, of: None)
    progress(Sam3dPeople.name, 0, 2)
    network = load_sam3d(files, options.device)
    progress(Sam3dPeople.name, 1, 2)
    made = perceiver_of(network, options)
    progress(Sam3dPeople.name, 2, 2)
    return made


def perceiver_of(network: Sam3dBody, options: PerceiverOptions) -> Perceiver:
    """Return the perceiver of a network that is loaded. Raises as `make`, for BlazePose's files."""
    table = None if options.body is None else surface_table(options.body)
    engine = Sam3dEngine(
        network,
        skin=None if table is None else (table.vertices, table.weights),
        hands=options.sam3d.hands,
        options=options.engine,
    )
    people = Sam3dPeople(engine, options.intrinsics_of, options.mhr_mesh)
    # BlazePose's networks are a small part of the work here. Compiling them would take minutes.
    if options.engine.engine == "auto":
        quick = "eager" if missing("triton", options.device) else "triton"
        options = replace(options, engine=replace(options.engine, engine=quick))
    if options.sam3d.reuse == "off":
        engine.warm_up(WINDOW_FRAMES * options.people)
        return make_top_down(people, options)
    if options.sam3d.reuse == "prompts":
        engine.warm_up(options.people, (NEIGHBOURS, PROMPTS))
        # People who moved much are measured in each frame.
        engine.warm_up(WINDOW_FRAMES * options.people)
    else:
        engine.warm_up(options.people)
    base = blazepose.make(options)
    return KeyFramePeople(base, people, options.sam3d.reuse, options.sam3d.every)

"""The free body as one file for the browser, which shapes and skins it on its GPU.

Only the body of this package is ever sent: the mesh of a licensed SMPL file stays on the machine
that has it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from app.view.container import pack
from pipeline.body.load import load_body

MODEL = "free"
"""The name of the free body (`BodyModel.name`)."""
_UNIT_M = 5e-5
"""The unit of the changes of shape, metres. Rounding moves a vertex by 0.1 mm at most where the
betas' magnitudes add up to 4."""
_INFLUENCES = 4
"""The most joints that move a vertex, for the free body and for WebGL's skinning."""


@cache
def body_file() -> bytes:
    """Return the free body that is drawn, the mannequin (`container.pack`).

    With V vertices and F triangles: ``template_m`` float32 (V, 3) at rest; ``change_m`` int16
    (10, V, 3), its change with each beta in units of ``unit_m``; ``index`` uint16 (F, 3);
    ``skin_joint`` uint8 and ``skin_weight`` uint16 (V, 4), 65535 for 1; ``joints_m`` float32
    (24, 3) and ``joints_change_m`` (24, 3, 10), SMPL's joints at rest. The free body has no pose
    blend shapes.
    """
    body = load_body(None)
    assert body.name == MODEL
    assert body.posedirs is None, "the page adds no pose blend shapes"
    assert body.mannequin is not None
    offsets = body.mannequin.numpy()
    change_m = body.shapedirs.numpy() + offsets[..., 1:]
    weights = body.weights.numpy()
    assert ((weights > 0).sum(1) <= _INFLUENCES).all()
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :_INFLUENCES]
    arrays = {
        "template_m": body.v_template.numpy() + offsets[..., 0],
        "change_m": np.round(np.moveaxis(change_m, 2, 0) / _UNIT_M).astype(np.int16),
        "index": body.faces.astype(np.uint16),
        "skin_joint": joints.astype(np.uint8),
        "skin_weight": np.round(65535 * np.take_along_axis(weights, joints, 1)).astype(np.uint16),
        "joints_m": body.joint_template.numpy(),
        "joints_change_m": body.joint_shapedirs.numpy(),
    }
    return pack({"unit_m": _UNIT_M}, arrays)

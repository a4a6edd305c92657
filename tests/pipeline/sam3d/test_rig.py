import pytest
import torch

from pipeline.sam3d.rig import JOINTS, VERTICES, Rig, RigError, rotation_of_euler
from tests.pipeline.sam3d.golden_rule import rig_tensors


def random_bodies(count: int):
    g = torch.Generator().manual_seed(3)
    parameters = 0.4 * torch.randn(count, 204, generator=g)
    return parameters, torch.randn(count, 45, generator=g)


def test_mesh_and_joints_are_those_of_the_rigs_own_arithmetic(synthetic, rig):
    """Its own: quaternions, a scan over levels in float64, sparse correctives and skinning."""
    parameters, shape = random_bodies(3)
    expected, state = synthetic(shape, parameters, torch.zeros(3, 72))
    vertices, joints = rig(parameters, shape)
    torch.testing.assert_close(vertices, expected, atol=1e-3, rtol=0)  # centimetres
    torch.testing.assert_close(joints[..., :3, 3], state[..., :3], atol=1e-3, rtol=0)
    scale = joints[..., :3, :3].det() ** (1 / 3)
    torch.testing.assert_close(scale, state[..., 7], atol=1e-5, rtol=1e-5)


def test_a_few_vertices_are_those_of_the_whole_mesh(rig):
    parameters, shape = random_bodies(2)
    rows = torch.randperm(VERTICES, generator=torch.Generator().manual_seed(5))[:300]
    vertices, joints = rig(parameters, shape)
    maps, turned = rig.skeleton(parameters)
    few = rig.surface.rows(rows)(maps, turned, shape)
    torch.testing.assert_close(few, vertices[:, rows], atol=1e-4, rtol=0)
    torch.testing.assert_close(maps, joints)


def test_chain_is_the_product_along_each_path(rig):
    g = torch.Generator().manual_seed(7)
    local = torch.eye(4).repeat(2, JOINTS, 1, 1)
    local[..., :3, :3] = rotation_of_euler(torch.randn(2, JOINTS, 3, generator=g))
    local[..., :3, 3] = torch.randn(2, JOINTS, 3, generator=g)
    maps = rig.skeleton._chain(local)
    above = rig.skeleton.ancestors[0].tolist()
    for joint in range(JOINTS):
        parent = maps[:, above[joint]] if above[joint] < JOINTS else torch.eye(4).expand(2, 4, 4)
        torch.testing.assert_close(maps[:, joint], parent @ local[:, joint], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("character_torch.skeleton.joint_parents", lambda t: t.flip(0), "before its parent"),
        ("character_torch.skeleton.joint_parents", lambda t: t[:5], "not 127"),
        ("character_torch.blend_shape.base_shape", lambda t: t * torch.inf, "not finite"),
        (
            "character_torch.linear_blend_skinning.skin_indices_flattened",
            lambda t: t + 120,
            "out of range",
        ),
        (
            "character_torch.linear_blend_skinning.skin_weights_flattened",
            lambda t: t[:-1],
            "of 51337",
        ),
    ],
)
def test_wrong_tensors_are_named(synthetic, name, change, says):
    tensors = rig_tensors(synthetic)
    tensors[name] = change(tensors[name])
    with pytest.raises(RigError, match=says):
        Rig(tensors)


def test_a_missing_tensor_is_named(synthetic):
    tensors = rig_tensors(synthetic)
    del tensors["character_torch.skeleton.joint_parents"]
    with pytest.raises(RigError, match="joint_parents is missing"):
        Rig(tensors)

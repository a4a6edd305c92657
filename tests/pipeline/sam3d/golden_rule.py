"""The numbers behind golden_tiny.npz: weights by name, and a made-up MHR rig.

golden_tiny.npz holds what the original implementation of SAM 3D Body (commit b5c765a) puts out with
these numbers, at tiny widths: `TINY`, float32, two people. None of its code or weights is here.

The picture is ``RandomState(1).randint(0, 255, (96, 128, 3))``; the boxes are in the file. In the
pass "masked", person 0 has a mask (``mask[15:85, 25:55] = 1``, score 0.9) and person 1 none.
"prompted" is the body pass, then one with the prompts (x, y, label) (.3, .4, 41), (0, 0, -2),
(.6, .2, 8), (.9, .5, -1) for both. ``layerI_0``: the tokens after a layer of the decoder;
``pose_stepI`` and ``camera_stepI``: what the heads put out after layer I, without the first guess;
``vertices``: every 97th.

golden_vith.npz is made in the same way with the ViT-H backbone, `TINY_VITH`: what comes out for
bodies and hands, each with and without the mask. "two_hands" and "some_hands" are bodies joined
with their hands, on the picture and boxes enlarged ten times: all hands are taken whose wrist is
bent by less than 4 and 2.1 radians.
"""

import math
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pipeline.body.rotations import exp_so3
from pipeline.sam3d.config import VITH, ModelConfig

WIDTHS = ("width", "depth", "heads", "hidden", "token_width", "token_heads", "token_inner")
TINY = ModelConfig(
    side=64,
    columns=4,
    width=64,
    depth=2,
    heads=4,
    hidden=256,
    token_width=64,
    token_heads=4,
    token_inner=64,
)

"""The widths of golden_tiny.npz."""
TINY_VITH = replace(VITH, **{name: getattr(TINY, name) for name in WIDTHS})
"""Those of golden_vith.npz, which has crops of 512 x 512: the original's columns are fixed."""
SMALL_VITH = replace(TINY_VITH, side=128, columns=6)
"""The same with few cells, for kernels that may be interpreted."""


def weight_of(name, shape):
    numbers = np.random.RandomState(zlib.crc32(name.encode()))
    return numbers.standard_normal(shape).astype(np.float32)


def fill(model):
    """Numbers by name, scaled by what a tensor is: the rules a test repeats."""

    with torch.no_grad():
        for name, value in list(model.named_parameters()) + list(model.named_buffers()):
            leaf = name.rsplit(".", 1)[-1]
            kept = ("periods", "bias_mask", "hand_pose_comps", "keypoint_mapping")
            if leaf in kept or not value.is_floating_point():
                continue
            is_norm = "norm" in name.split(".")[-2] or ".ln" in name
            new = torch.from_numpy(weight_of(name, tuple(value.shape)))
            if leaf == "gamma":
                new = 0.3 + 0.1 * new
            elif is_norm or ("mask_downscaling" in name and value.ndim == 1):
                new = (1.0 if leaf == "weight" else 0.0) + 0.1 * new
            elif leaf == "positional_encoding_gaussian_matrix":
                pass
            elif ("embed" in name and value.ndim == 2) or leaf in ("cls_token", "storage_tokens"):
                new = 0.5 * new
            elif leaf == "weight" and value.ndim >= 2:
                new = new / np.sqrt(value[0].numel())
            else:
                new = 0.1 * new
            value.copy_(new)
        fill_constants(model)


REST_POSE = torch.cat(
    [
        torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24),  # rotations as 6D
        torch.tensor([0.0, 1.0]).repeat(58),  # sine and cosine of angles
        torch.zeros(519 - 24 * 6 - 58 * 2),
    ]
)


def fill_constants(model):
    """The MHR constants, by formula."""

    hands = torch.arange(68, 122)
    branches = (
        (0, model.head_pose, model.head_camera),
        (1, model.head_pose_hand, model.head_camera_hand),
    )
    for hand, head, camera in branches:
        head.proj.layers[-1].weight.mul_(0.1)
        head.proj.layers[-1].bias.zero_()
        camera.proj.layers[-1].weight.mul_(0.1)
        camera.proj.layers[-1].bias.copy_(torch.tensor([-0.1 if hand else -1.1, 0.02, -0.03]))
        head.scale_mean.fill_(0.02)
        head.scale_comps.mul_(0.05)
        angles = torch.from_numpy(0.3 * weight_of(f"joint_rotation{hand}", (127, 3)))
        head.joint_rotation.copy_(exp_so3(angles))
        head.hand_pose_mean.mul_(5)
        head.hand_joint_idxs_left.copy_(hands[:27])
        head.hand_joint_idxs_right.copy_(hands[27:])
        mapping = torch.zeros(308, VERTICES + JOINTS)
        for row in range(308):
            if row % 2:  # half of them a joint, half the mean of five vertices
                mapping[row, VERTICES + row % JOINTS] = 1
            else:
                mapping[row, [(7919 * (row + 1) * k) % VERTICES for k in range(1, 6)]] = 0.2
        head.keypoint_mapping.copy_(mapping)
        head.local_to_world_wrist.copy_(torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
        head.right_wrist_coords.copy_(torch.tensor([-0.6, 1.3, 0.0]))
        head.root_coords.copy_(torch.tensor([0.0, 0.92, 0.0]))
        head.nonhand_param_idxs.copy_(torch.cat([torch.arange(6, 68), torch.arange(121, 204)]))
        (model.init_pose_hand if hand else model.init_pose).weight.copy_(
            REST_POSE + 0.1 * torch.from_numpy(weight_of(f"init_pose{hand}", (1, 519)))
        )
    model.init_camera.weight.zero_()
    model.init_camera_hand.weight.zero_()


# MHR's joint tree (127 joints, 0 = body_world, 1 = root), as the released rig has it.
PARENTS = [
    -1, 0, 1, 2, 3, 4, 5, 6, 7, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 18,
    19, 20, 21, 22, 23, 19, 19, 19, 19, 18, 18, 18, 18, 18, 1, 34, 35, 36, 37, 38,
    39, 40, 41, 42, 43, 44, 45, 46, 42, 48, 49, 50, 42, 52, 53, 54, 42, 56, 57, 58,
    42, 60, 61, 62, 63, 40, 40, 40, 40, 39, 39, 39, 39, 39, 37, 74, 75, 76, 77, 78,
    79, 80, 81, 82, 78, 84, 85, 86, 78, 88, 89, 90, 78, 92, 93, 94, 78, 96, 97, 98,
    99, 76, 76, 76, 76, 75, 75, 75, 75, 75, 37, 110, 110, 110, 113, 114, 114, 114, 117, 118,
    119, 120, 113, 122, 113, 124, 113,
]  # fmt: skip
JOINTS, VERTICES, FACES, INFLUENCES = 127, 18439, 36874, 51337
SHAPE, EXPRESSION, PARAMETERS, NONZERO = 45, 72, 204, 53136


def prefix_levels():
    """Sklansky scan over each joint's chain: (source, target) pairs, 266 in 4 levels."""
    chains = []
    for joint, parent in enumerate(PARENTS):
        chains.append(([] if parent < 0 else chains[parent]) + [joint])
    levels = []
    for bit in range(max(len(c) for c in chains).bit_length()):
        pairs = [
            (chain[-1], chain[((len(chain) - 1) >> bit << bit) - 1])
            for chain in chains
            if (len(chain) - 1) >> bit & 1
        ]
        if pairs:
            levels.append(pairs)
    return levels


def euler_to_quaternion(angles):
    c = torch.cos(angles * 0.5)
    s = torch.sin(angles * 0.5)
    cr, cp, cy = c[..., 0], c[..., 1], c[..., 2]
    sr, sp, sy = s[..., 0], s[..., 1], s[..., 2]
    return torch.stack(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ],
        dim=-1,
    )


def quaternion_product(a, b):
    av, aw = a[..., :3], a[..., 3:]
    bv, bw = b[..., :3], b[..., 3:]
    v = aw * bv + bw * av + torch.cross(av, bv, dim=-1)
    return torch.cat([v, aw * bw - (av * bv).sum(dim=-1, keepdim=True)], dim=-1)


def quaternion_rotate(q, v):
    t = torch.cross(q[..., :3], v, dim=-1)
    return v + 2.0 * (t * q[..., 3:] + torch.cross(q[..., :3], t, dim=-1))


def compose(a, b):
    qa = nn.functional.normalize(a[..., 3:7], dim=-1)
    qb = nn.functional.normalize(b[..., 3:7], dim=-1)
    t = a[..., :3] + a[..., 7:] * quaternion_rotate(qa, b[..., :3])
    return torch.cat([t, quaternion_product(qa, qb), a[..., 7:] * b[..., 7:]], dim=-1)


def six_of_euler(r):
    c, s = torch.cos(r), torch.sin(r)
    cx, cy, cz = c[..., 0], c[..., 1], c[..., 2]
    sx, sy, sz = s[..., 0], s[..., 1], s[..., 2]
    return torch.stack(
        [cy * cz, cy * sz, -sy, sx * sy * cz - cx * sz, cx * cz + sx * sy * sz, sx * cy], dim=-1
    )


class Holder(nn.Module):
    def __init__(self, **buffers):
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)


class Character(nn.Module):
    def __init__(self, blend_shape, skeleton, skinning, transform):
        super().__init__()
        self.blend_shape = blend_shape
        self.skeleton = skeleton
        self.linear_blend_skinning = skinning
        self.parameter_transform = transform


class SyntheticRig(nn.Module):
    """mhr_model.pt's interface and arithmetic (float64 chain, sparse then dense correctives,
    51337 skinning triplets), with the released buffers' names and shapes and made-up numbers."""

    def __init__(self, seed=0, hidden=3000):
        super().__init__()
        g = np.random.RandomState(seed)  # its numbers are the same with every numpy and torch

        def noise(*shape, scale=1.0):
            return torch.from_numpy((g.standard_normal(shape) * scale).astype(np.float32))

        levels = prefix_levels()
        offsets = noise(JOINTS, 3, scale=4.0)
        offsets[1] = torch.tensor([0.0, 92.0, 0.0])
        prerotations = nn.functional.normalize(
            torch.cat([noise(JOINTS, 3, scale=0.2), torch.ones(JOINTS, 1)], dim=1), dim=1
        )
        transform = torch.zeros(JOINTS * 7, PARAMETERS + SHAPE)
        for k in range(3):
            transform[1 * 7 + k, k] = 1.0  # translation of the root, centimetres
            transform[1 * 7 + 3 + k, 3 + k] = 1.0
        dofs = [(j, k) for j in range(2, JOINTS) for k in range(3)]
        # 130 body parameters over the joints' rotations; 124 to 129 are translations
        for p in range(130):
            j, k = dofs[p * len(dofs) // 130]
            transform[j * 7 + (k if 124 <= p < 130 else 3 + k), 6 + p] = 1.0
        for p in range(68):  # the scales: a joint's scale and its children's offsets
            j = 1 + p * (JOINTS - 1) // 68
            transform[j * 7 + 6, 136 + p] = 0.2
            transform[j * 7 + 1, 136 + p] = 1.0
        owner = torch.from_numpy(g.randint(1, JOINTS, VERTICES).astype(np.int64))
        extra = g.permutation(VERTICES * 3)[: INFLUENCES - VERTICES].astype(np.int64) // 3
        vertex = torch.cat([torch.arange(VERTICES), torch.from_numpy(extra)]).sort().values
        joint = owner[vertex].clone()
        first = torch.cat([torch.tensor([True]), vertex[1:] != vertex[:-1]])
        joint[~first] = torch.tensor([max(p, 1) for p in PARENTS])[joint[~first]]
        weight = torch.from_numpy(g.random_sample(INFLUENCES).astype(np.float32)) + 0.1
        weight = weight / torch.zeros(VERTICES).index_add_(0, vertex, weight)[vertex]
        self.character_torch = Character(
            Holder(
                base_shape=torch.zeros(VERTICES, 3),
                shape_vectors=noise(SHAPE, VERTICES, 3, scale=0.2),
            ),
            Holder(
                joint_translation_offsets=offsets,
                joint_prerotations=prerotations,
                joint_parents=torch.tensor(PARENTS, dtype=torch.int32),
                pmi=torch.tensor([pair for level in levels for pair in level]).T.contiguous(),
            ),
            Holder(
                inverse_bind_pose=torch.zeros(JOINTS, 8),
                skin_weights_flattened=weight,
                skin_indices_flattened=joint.int(),
                vert_indices_flattened=vertex,
            ),
            Holder(parameter_transform=transform),
        )
        self.face_expressions_model = Holder(
            shape_vectors=noise(EXPRESSION, VERTICES, 3, scale=0.1)
        )
        nonzero = min(NONZERO, hidden * 18)
        chosen = g.permutation(hidden * 750)[:nonzero].astype(np.int64)
        cells = torch.from_numpy(chosen).sort().values
        self.pose_correctives_model = Holder(
            sparse_indices=torch.stack([cells // 750, cells % 750]),
            sparse_weight=noise(nonzero, scale=0.3),
            weight=noise(VERTICES * 3, hidden, scale=0.2 / math.sqrt(hidden)),
        )
        self.sizes = [len(level) for level in levels]
        self.hidden = hidden
        # a rest shape: vertices about their joint; the bind pose is the chain at rest
        state = self.chain(self.local(torch.zeros(1, JOINTS * 7)))[0]
        back = state.clone()
        back[:, 3:6] *= -1
        back[:, 7:] = 1 / state[:, 7:]
        back[:, :3] = -back[:, 7:] * quaternion_rotate(back[:, 3:7], state[:, :3])
        self.character_torch.linear_blend_skinning.inverse_bind_pose.copy_(back)
        places = state[owner, :3] + noise(VERTICES, 3, scale=4.0)
        self.character_torch.blend_shape.base_shape.copy_(places)

    def local(self, joint_parameters):
        jp = joint_parameters.view(-1, 127, 7)
        skeleton = self.character_torch.skeleton
        q = quaternion_product(
            skeleton.joint_prerotations.expand(jp.shape[0], -1, -1),
            euler_to_quaternion(jp[..., 3:6]),
        )
        return torch.cat(
            [
                jp[..., :3] + skeleton.joint_translation_offsets,
                q,
                torch.exp(jp[..., 6:] * 0.6931471824645996),
            ],
            dim=-1,
        )

    def chain(self, local):
        state = local.double()
        pmi = self.character_torch.skeleton.pmi
        at = 0
        for size in self.sizes:
            source, target = pmi[0, at : at + size], pmi[1, at : at + size]
            moved = compose(state.index_select(-2, target), state.index_select(-2, source))
            state = state.index_copy(-2, source, moved)
            at += size
        return state.to(local.dtype)

    def forward(self, identity_coeffs, model_parameters, face_expr_coeffs):
        shape = self.character_torch.blend_shape
        rest = shape.base_shape + torch.einsum("nvd,bn->bvd", shape.shape_vectors, identity_coeffs)
        padded = torch.cat([model_parameters, torch.zeros_like(identity_coeffs)], dim=1)
        transform = self.character_torch.parameter_transform.parameter_transform
        jp = torch.einsum("dn,bn->bd", transform, padded)
        state = self.chain(self.local(jp))
        faces = self.face_expressions_model.shape_vectors
        rest = rest + torch.einsum("nvd,bn->bvd", faces, face_expr_coeffs)
        six = six_of_euler(jp.view(-1, 127, 7)[:, 2:, 3:6])
        six = (six - torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])).flatten(1, 2)
        rows = self.pose_correctives_model
        shape = [self.hidden, 750]
        sparse = torch.sparse_coo_tensor(
            rows.sparse_indices, rows.sparse_weight, shape, check_invariants=True
        )
        hidden = torch.relu(torch.matmul(sparse, six.transpose(0, 1)).transpose(0, 1))
        rest = rest + nn.functional.linear(hidden, rows.weight).view(-1, 18439, 3)
        skin = self.character_torch.linear_blend_skinning
        joint = compose(state, skin.inverse_bind_pose.expand(state.shape[0], -1, -1))
        joint = joint.index_select(-2, skin.skin_indices_flattened)
        point = rest.index_select(-2, skin.vert_indices_flattened)
        q = nn.functional.normalize(joint[..., 3:7], dim=-1)
        point = joint[..., :3] + quaternion_rotate(q, joint[..., 7:] * point)
        out = torch.zeros_like(rest).index_add(
            -2, skin.vert_indices_flattened, point * skin.skin_weights_flattened[:, None]
        )
        return out, state


def rig_tensors(rig):
    """The synthetic rig's tensors under the names of the released rig."""
    correctives = "pose_correctives_model."
    names = {
        "sparse_indices": "pose_dirs_predictor.0.sparse_indices",
        "sparse_weight": "pose_dirs_predictor.0.sparse_weight",
        "weight": "pose_dirs_predictor.2.weight",
    }
    return {
        correctives + names[name.removeprefix(correctives)]
        if name.startswith(correctives)
        else name: value
        for name, value in rig.named_buffers()
    }

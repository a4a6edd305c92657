"""The files of a release, as they are downloaded, with numbers of the tests' own."""

from __future__ import annotations

import torch
import yaml
from torch import nn

from pipeline.sam3d import checkpoint


class Part(nn.Module):
    def forward(self, x):
        return x


def program_of(tensors):
    """A module with tensors of these names, for TorchScript."""
    root = Part()
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Part())
            module = module._modules[part]
        module.register_buffer(leaf, value)
    return root


def settings(backbone="dinov3_vith16plus", **decoder):
    values = {}
    for name, value in checkpoint._SETTINGS.items():
        *path, leaf = name.split(".")
        at = values
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = value
    values["MODEL"]["DECODER"].update(decoder)
    values["MODEL"]["BACKBONE"] = {"TYPE": backbone, "DROP_PATH_RATE": 0.1}
    return yaml.safe_dump(values)


def write_release(folder, weights, tensors):
    """Write a release with a network's weights and a rig's tensors; return its folder."""
    (folder / "assets").mkdir(parents=True)
    torch.save({"state_dict": weights, "epoch": 3}, folder / "model.ckpt")
    (folder / "model_config.yaml").write_text(settings())
    torch.jit.save(torch.jit.script(program_of(tensors)), folder / "assets/mhr_model.pt")
    return folder

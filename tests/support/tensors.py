"""Comparing tensors, and watching what is done with them."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def close(actual, expected, atol):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


class NoHostLook(TorchDispatchMode):
    """Fails where a value comes from the host or goes to it: a CUDA graph could not have it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        forbidden = ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "item")
        assert not any(word in name for word in forbidden), name
        return function(*args, **(kwargs or {}))

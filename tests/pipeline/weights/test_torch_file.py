"""Weights are read from files exactly, and nothing in a file is executed."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.weights.torch_file import (
    CheckpointError,
    load_exactly,
    read_script,
    read_state,
)


def little():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2))
    net[2].register_buffer("passing", torch.ones(3), persistent=False)
    return net


def same(state, net):
    wanted = {
        name: t.float() if t.is_floating_point() else t for name, t in net.state_dict().items()
    }
    return state.keys() == wanted.keys() and all(torch.equal(state[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("wrap", ["module", "model", "ema", "state", "nested", "legacy"])
def test_every_honest_shape_of_a_file_is_read(wrap, tmp_path):
    net, other = little().half(), little()
    other[0].weight.data += 1
    content = {
        "module": net,
        "model": {"model": net, "ema": None, "epoch": 3},
        "ema": {"model": other, "ema": net, "optimizer": {"state": torch.ones(5)}},
        "state": net.state_dict(),
        "nested": {"model": OrderedDict(net.state_dict())},
        "legacy": net.state_dict(),
    }[wrap]
    path = tmp_path / "net.pt"
    torch.save(content, path, _use_new_zipfile_serialization=wrap != "legacy")
    state = read_state(path)
    assert same(state, net)
    assert "2.passing" not in state
    load_exactly(other.float(), state, "a net")
    assert same(other.state_dict(), net)


def test_views_of_shared_values_are_read_as_they_are(tmp_path):
    values = torch.arange(24.0).reshape(4, 6)
    state = {"all": values, "turned": values.T, "part": values[1:3, ::2], "none": torch.empty(0, 3)}
    state["number"] = torch.tensor(7)
    torch.save(state, tmp_path / "views.pt")
    read = read_state(tmp_path / "views.pt")
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_values_that_are_shared_a_hundred_times_are_refused(tmp_path):
    """Each view would be a copy of its own: a megabyte of file, gigabytes of memory."""
    values = torch.zeros(1000)
    torch.save({str(n): values for n in range(3)}, tmp_path / "tied.pt")
    assert len(read_state(tmp_path / "tied.pt")) == 3
    torch.save({str(n): values for n in range(300)}, tmp_path / "many.pt")
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_state(tmp_path / "many.pt")


def test_safetensors_are_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    net = little()
    path = tmp_path / "net.safetensors"
    safetensors.save_file(net.state_dict(), path)
    assert same(read_state(path), net)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        read_state(path)


class Trap:
    """Unpickled the usual way it writes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
def test_a_hostile_file_is_refused_and_does_nothing(tmp_path, zipped, place):
    mark = tmp_path / "done"
    trap = Trap(os.system, f"touch {mark}")
    net = little()
    net[0].trap = trap
    content = {"alone": trap, "beside": {"model": little(), "x": trap}, "inside": net}[place]
    path = tmp_path / "bad.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not mark.exists()
    if zipped:
        assert "it asks for posix.system" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval", "builtins.exec", "torch.load", "torch.hub.load", "os.system",
        "torch.storage._load_from_bytes", "torch.jit.load", "subprocess.Popen",
        "pipeline.weights.store.fetch", "numpy.load", "shutil.rmtree", "pickle.loads",
    ],
)  # fmt: skip
def test_names_that_weights_never_need_are_refused(name, tmp_path):
    module, _, attribute = name.rpartition(".")
    data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
    with pytest.raises(CheckpointError, match="which weights never need"):
        read_state(archive(tmp_path, data))


def archive(folder, data, values=(), **entry):
    """A file as torch writes it out of a pickle and its values."""
    path = folder / "made.pt"
    with zipfile.ZipFile(path, "w", **entry) as out:
        out.writestr("made/data.pkl", data)
        for number, content in enumerate(values):
            out.writestr(f"made/data/{number}", content)
    return path


class Fixed(pickle.Pickler):
    """Writes tensors as asked, whatever their values."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Stored) else None


class Stored:
    def __init__(self, *pid):
        self.pid = pid


class Claim:
    def __init__(self, storage, offset, size, stride):
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def claiming(*arguments, pid=("storage", torch.FloatStorage, "0", "cpu", 4)):
    out = io.BytesIO()
    Fixed(out, 2).dump({"w": Claim(Stored(*pid), *arguments)})
    return out.getvalue()


def test_a_tensor_lies_within_its_values(tmp_path):
    values = [np.arange(4, dtype=np.float32).tobytes()]
    good = read_state(archive(tmp_path, claiming(1, (3,), (1,)), values))
    assert good["w"].tolist() == [1, 2, 3]
    for arguments in (
        (2, (3,), (1,)), (0, (5,), (1,)), (0, (2,), (4,)), (-1, (2,), (1,)), (0, (2,), (-1,)),
        (0, (1 << 20, 1 << 20), (0, 0)), (0, (2, 2), (1,)), (0, (1 << 50,), (0,)),
        (0, (True, 2.0), (1, 1)), (0, (1,) * 9, (1,) * 9),
    ):  # fmt: skip
        with pytest.raises(CheckpointError):
            read_state(archive(tmp_path, claiming(*arguments), values))
    floats, doubles = torch.FloatStorage, torch.DoubleStorage
    for pid in (
        ("storage", floats, "../0", "cpu", 4), ("storage", floats, "1", "cpu", 4),
        ("storage", floats, "0", "cpu", 5), ("module", floats, "0", "cpu", 4),
        ("storage", doubles, "0", "cpu", 4), ("storage", "0", 4), (),
    ):  # fmt: skip
        with pytest.raises(CheckpointError):
            read_state(archive(tmp_path, claiming(0, (2,), (1,), pid=pid), values))


def test_compressed_archives_and_programs_are_refused(tmp_path):
    values = [bytes(16)]
    data = claiming(0, (4,), (1,))
    with pytest.raises(CheckpointError, match="packed"):
        read_state(archive(tmp_path, data, values, compression=zipfile.ZIP_DEFLATED))
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_state(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as out:
        out.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="not of torch"):
        read_state(tmp_path / "other.pt")
    with pytest.raises(OSError, match="nowhere"):
        read_state(tmp_path / "nowhere.pt")
    for content in (b"", b"hello", b"\x80\x02}."):
        (tmp_path / "junk.pt").write_bytes(content)
        with pytest.raises(CheckpointError):
            read_state(tmp_path / "junk.pt")


def test_a_module_that_holds_itself_ends(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2))
    net._modules["again"] = net
    torch.save(net, tmp_path / "loop.pt")
    with pytest.raises(CheckpointError, match="more parts"):
        read_state(tmp_path / "loop.pt")


def test_one_file_cannot_spoil_the_next(tmp_path):
    """A pickle may set what it likes on the types it names; they are not those of other files."""
    data = b"\x80\x02ctorch.nn.modules.linear\nLinear\n(N}X\x0c\x00\x00\x00__setstate__K\x01stb."
    with pytest.raises(CheckpointError):
        read_state(archive(tmp_path, data))
    torch.save(little(), tmp_path / "good.pt")
    assert same(read_state(tmp_path / "good.pt"), little())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_gives_one_line_and_no_other_weights(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    good = folder / "good.pt"
    if not good.exists():
        torch.save({"model": little()}, good)
    content = bytearray(good.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    bad = folder / "bad.pt"
    bad.write_bytes(content)
    try:
        state = read_state(bad)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:  # What does not matter was hit: a date, a filler.
        assert same(state, little())


def test_only_exactly_the_right_weights_are_taken():
    net = little()
    right = {name: t.clone() for name, t in net.state_dict().items()}
    for change, match in (
        ({"0.weight": None}, r"1 missing \(0\.weight\)"),
        ({"9.weight": torch.ones(1)}, r"1 extra \(9\.weight\)"),
        ({"2.bias": torch.ones(3)}, r"2\.bias is \(3,\), not \(2,\)"),
        ({"2.bias": torch.tensor([1.0, float("nan")])}, "not finite"),
    ):
        wrong = {name: t for name, t in {**right, **change}.items() if t is not None}
        with pytest.raises(CheckpointError, match=match):
            load_exactly(net, wrong, "a net")
    assert same(right, net)


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(6, dtype=torch.int32).reshape(2, 3))
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        self.sizes = [1, 2]
        self.name = "scripted"

    def forward(self, x):
        return self.layers(x + self.table) * self.sizes[0]


def test_tensors_of_a_program_are_read_without_running_it(tmp_path):
    module = Scripted()
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(module), path)
    tensors, own = read_script(path), module.state_dict()
    assert tensors.keys() == own.keys()
    for name, value in own.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)


def test_only_programs_are_read_as_programs(tmp_path):
    torch.save(little().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="weights alone"):
        read_script(tmp_path / "weights.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="no TorchScript program"):
        read_script(tmp_path / "junk.pt")
    for data in (b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.", b"\x80\x02K\x01."):
        path = archive(tmp_path, data)
        with zipfile.ZipFile(path, "a") as out:
            out.writestr("made/constants.pkl", b"\x80\x02).")
        with pytest.raises(CheckpointError, match="it asks for os.system|not a module"):
            read_script(path)

"""Official checkpoints: every tensor and argument is found, and whatever else a file asks for is refused and not done."""

import encodings.cp437  # noqa: F401  zipfile wants it late, which is no work of a checkpoint
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facednerf_core.errors import FacednerfError, InputError
from facednerf_core.unpickle import Node, Refused, StoredTensor, network, read
from tests import official_pickles
from tests.official_pickles import AXES, SOURCE, generator, write

ARGUMENTS = {"z_dim": 4, "rendering_kwargs": {"box_warp": 1, "avg_camera_pivot": [0, 0, 0.2]}, "conv_clamp": None}
WATCHED = ("pickle.find_class", "exec", "compile", "import", "os.system", "subprocess.Popen", "os.posix_spawn", "os.exec")
_events: list[str] | None = None


def _watch(event, _):
    if _events is not None and event in WATCHED:
        _events.append(event)


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def nothing_happens(tmp_path, monkeypatch):
    """Nothing is imported, compiled or executed by any reading, and no file appears."""
    global _events
    monkeypatch.chdir(tmp_path)
    before, _events = set(sys.modules), None
    yield
    _events = None
    assert not Path("executed").exists()
    assert not {name for name in set(sys.modules) - before if name.startswith(("training", "torch_utils", "dnnlib"))}


def quietly(action, *arguments):
    """Runs an action while watching that nothing is executed."""
    global _events
    _events = []
    try:
        return action(*arguments)
    finally:
        seen, _events = _events, None
        assert seen == []


def tensors():
    torch.manual_seed(1)
    names = {
        "backbone.synthesis.b4.const": (3, 4, 4),
        "backbone.synthesis.b4.resample_filter": (4, 4),
        "backbone.synthesis.b4.conv1.weight": (3, 3, 3, 3),
        "backbone.synthesis.b4.conv1.noise_strength": (),
        "backbone.synthesis.b4.conv1.bias": (3,),
        "backbone.synthesis.b4.conv1.noise_const": (4, 4),
        "backbone.mapping.w_avg": (4,),
        "backbone.mapping.fc0.weight": (4, 8),
        "superresolution.block0.conv0.weight": (2, 3, 3, 3),
        "decoder.net.0.weight": (5, 3),
        "decoder.net.0.bias": (5,),
        "decoder.net.2.weight": (4, 5),
    }
    return {name: torch.randn(shape) for name, shape in names.items()}


def checkpoint(**attributes):
    made = generator(tensors(), ARGUMENTS, neural_rendering_resolution=128, **attributes)
    other = generator({name: value + 1 for name, value in tensors().items()}, ARGUMENTS)
    return {"training_set_kwargs": {"path": "x.zip"}, "G": other, "D": other, "G_ema": made, "augment_pipe": None}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_an_official_checkpoint(tmp_path, protocol):
    path = write(tmp_path / "made.pkl", checkpoint(), protocol)
    assert SOURCE.encode() in path.read_bytes()
    torch.zeros(1)
    found = quietly(network, path)
    assert list(found.tensors) == list(tensors())
    for name, value in tensors().items():
        assert torch.equal(found.tensors[name], value)
        assert found.tensors[name].is_contiguous()
    assert found.name == "TriPlaneGenerator"
    assert found.arguments == ARGUMENTS
    assert type(found.arguments["rendering_kwargs"]) is dict
    assert found.attributes["rendering_kwargs"] == ARGUMENTS["rendering_kwargs"]
    assert found.attributes["neural_rendering_resolution"] == 128
    assert torch.equal(found.attributes["renderer.plane_axes"], AXES)
    assert found.attributes["decoder.net.0.weight_gain"] == pytest.approx(1 / 3**0.5)
    assert type(found.attributes["decoder.net.0.weight_gain"]) is float
    assert len(found.source) == 64
    assert torch.equal(quietly(network, path, "G").tensors["decoder.net.0.bias"], tensors()["decoder.net.0.bias"] + 1)


def test_what_is_not_in_the_state_dict_stays_out_and_the_label_buffer_comes_first(tmp_path):
    given = {"dataset_label_std": torch.ones(25)} | tensors()
    made = generator(given, ARGUMENTS, _last_planes=torch.ones(3))
    del made.backbone._non_persistent_buffers_set  # as old files
    found = network(write(tmp_path / "made.pkl", {"G_ema": made}))
    assert list(found.tensors) == list(given)
    assert not any("scratch" in name or "planes" in name for name in [*found.tensors, *found.attributes])


def test_layouts_and_types_of_tensors(tmp_path):
    whole = torch.arange(48.0).view(2, 3, 4, 2)
    made = {
        "last": whole.contiguous(memory_format=torch.channels_last),
        "part": whole[:, 1:, ::2],
        "turned": whole[0, 0].t(),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
        **{str(dtype)[6:]: torch.tensor([1, 0, 1]).to(dtype) for dtype in (torch.float64, torch.int64, torch.bool)},
        **{str(dtype)[6:]: torch.tensor([1.5, -2]).to(dtype) for dtype in (torch.float16, torch.bfloat16)},
    }
    path = write(tmp_path / "made.pkl", {"G_ema": made})
    found = quietly(network, path).tensors
    for name, value in made.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
        assert found[name].is_contiguous()
    found["one"].add_(1)  # memory of its own
    assert network(path).tensors["one"] == 2.5


def test_a_tensor_that_was_on_a_gpu_comes_to_the_cpu(tmp_path):
    path = write(tmp_path / "made.pkl", {"G_ema": {"w": torch.ones(3)}})
    data = path.read_bytes()
    assert data.count(b"X\x03\x00\x00\x00cpu") == 1
    moved = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    start = moved.index(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # the storage's own stream, three bytes longer now
    at = moved.rindex(b"B", 0, start)
    (length,) = struct.unpack("<I", moved[at + 1 : at + 5])
    frame = moved.index(b"\x95")
    size = struct.unpack("<Q", moved[frame + 1 : frame + 9])[0] + 3
    moved = moved[: at + 1] + struct.pack("<I", length + 3) + moved[at + 5 :]
    path.write_bytes(moved[: frame + 1] + struct.pack("<Q", size) + moved[frame + 9 :])
    assert torch.equal(network(path).tensors["w"], torch.ones(3))


def test_numbers_and_arrays_of_numpy(tmp_path):
    """Under their names before and after numpy 2."""
    held = generator(tensors(), ARGUMENTS, gain=np.float32(0.5), table=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy._core", b"numpy._core")):
        path = write(tmp_path / "made.pkl", {"G_ema": held}, protocol=2)  # names stand in lines there
        path.write_bytes(path.read_bytes().replace(old, new))
        found = quietly(network, path).attributes
        assert found["gain"] == 0.5
        assert torch.equal(found["table"], torch.arange(6.0).view(2, 3).double())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["G_ema", None])
def test_tensors_that_torch_saved(tmp_path, zipped, key):
    """Converted checkpoints in circulation: a state dict, under a name or alone, and no arguments."""
    state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()  # an OrderedDict with notes of torch's
    state["shared"] = state["0.weight"][1]
    torch.save(state if key is None else {key: state}, tmp_path / "made.pt", _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(tmp_path / "made.pt") == zipped
    found = quietly(network, tmp_path / "made.pt")
    assert list(found.tensors) == list(state)
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())
    assert (found.name, found.arguments, found.attributes) == ("", {}, {})


def test_another_network_than_there_is(tmp_path):
    path = write(tmp_path / "made.pkl", checkpoint())
    with pytest.raises(InputError, match=r"no network 'G_best'; it holds: training_set_kwargs, G, D, G_ema, augment_pipe"):
        network(path, "G_best")
    with pytest.raises(InputError, match=r"'augment_pipe' in .* is a NoneType"):
        network(path, "augment_pipe")
    path.write_bytes(pickle.dumps((1, 2, 3)))
    with pytest.raises(InputError, match="it holds: a tuple"):
        network(path)
    with pytest.raises(InputError, match="cannot read"):
        network(tmp_path / "nowhere.pkl")


def test_plain_contents_are_read_as_they_are(tmp_path):
    """Everything that protocols 0 to 5 write of Python's own."""
    content = {
        "numbers": [0, 1, -1, 255, 65536, 2**40, -(2**70), 1.5, True, False, None],
        "text": ["", "é\n", "x" * 300],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), tuple(range(9))],
        "bytes": b"\x00\xff" * 200,
        "set": {1, 2, "three"},
        "empty": [{}, [], set()],
    }
    content["again"] = content["text"]
    for protocol in range(2, 6):
        (tmp_path / "made.pkl").write_bytes(pickle.dumps(content, protocol))
        found = quietly(read, tmp_path / "made.pkl")
        assert found == content
        assert found["again"] is found["text"]


def test_networks_by_reference_are_nodes(tmp_path):
    found = read(write(tmp_path / "made.pkl", checkpoint()))["G_ema"]
    renderer = found.state["_modules"]["renderer"]
    assert isinstance(renderer, Node)
    assert (renderer.module, renderer.name) == ("training.volumetric_rendering.renderer", "ImportanceRenderer")
    assert isinstance(renderer.state["plane_axes"], StoredTensor)


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call

    __call__ = __reduce__  # to stand where a function is wanted


HOSTILE = {
    "system": Call(os.system, "touch executed"),
    "eval": Call(eval, "open('executed', 'w')"),
    "exec": Call(exec, SOURCE),
    "import": Call(__import__, "this"),
    "getattr": Call(getattr, {}, "clear"),
    "open": Call(open, "executed", "w"),
    "path": Path("executed"),
    "torch.load": Call(torch.load, "executed"),
    "a call of what a call gave": Call(Call(__import__, "os"), "touch executed"),
    "inside a tensor's arguments": Call(torch._utils._rebuild_parameter, Call(os.system, "touch executed"), True, {}),
    "inside a network's state": {"hook": Call(os.system, "touch executed")},
    "a function that only lies there": [os.system],
    "a class that only lies there": [nn.functional.relu],
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_file_must_not_ask_for(tmp_path, name, protocol):
    """At the top, and deep inside what would otherwise be an official checkpoint."""
    hidden = checkpoint(payload=HOSTILE[name])
    hidden["G_ema"].renderer.payload = HOSTILE[name]
    for content in ({"G_ema": HOSTILE[name]}, {"D": HOSTILE[name], "G_ema": {"w": torch.ones(2)}}, hidden):
        path = write(tmp_path / "made.pkl", content, protocol)
        with pytest.raises(Refused, match=r"made\.pkl' is not read: it asks for .*Nothing in it was executed\. Get it from"):
            quietly(network, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_file_of_torch_must_not_ask_for(tmp_path, zipped):
    path = tmp_path / "made.pt"
    torch.save({"G_ema": {"w": torch.ones(2)}, "x": HOSTILE["system"]}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Refused, match=r"it asks for (posix|nt)\.system"):
        quietly(network, path)


def test_what_a_storage_must_not_ask_for(tmp_path):
    """The bytes of each storage are pickles again."""
    for inner in (pickle.dumps(HOSTILE["system"]), pickle.dumps({"no": "storage"}), b""):
        content = {
            "w": Call(torch._utils._rebuild_tensor_v2, Call(torch.storage._load_from_bytes, inner), 0, (1,), (1,), False, {})
        }
        path = write(tmp_path / "made.pkl", {"G_ema": content})
        with pytest.raises(Refused, match=r"asks for (posix|nt)\.system|not written as torch.save does|announces more"):
            quietly(network, path)


def text(*words: str) -> bytes:
    """Instructions that put text on the stack."""
    return b"".join(b"X" + struct.pack("<I", len(word)) + word.encode() for word in words)


ORDERED = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_parameter\n"
STORED = pickle.dumps(torch.ones(2), 2)[2:-1]
STREAMS = {
    # what pickle would do with it; what is said
    "a result is called": (ORDERED + text("touch executed") + b"\x85R", "it calls a dict"),
    "text is called": (text("posix.system", "touch executed") + b"\x85R", "it calls a str"),
    "a node is called": (b"ctraining.x\nY\n)\x81" + text("a") + b"\x85R", "it calls a Node"),
    "a class of nodes is called": (b"ctraining.x\nY\n" + text("a") + b"\x85R", r"it calls training\.x\.Y"),
    "a function is made an object": (b"cbuiltins\nset\n)\x81", "makes an object of builtins.set"),
    "arguments for a node": (b"ctorch.nn.modules.x\nY\n" + text("a") + b"\x85\x81", "from 1 arguments"),
    "a function gets defaults": (REBUILD + b"N}" + text("__defaults__") + b"N\x85s\x86b", "gives a Name a state"),
    "a function gets a state": (REBUILD + b"}" + text("__code__", "x") + b"sb", "gives a Name a state"),
    "a class of nodes gets a state": (b"ctraining.x\nY\n}" + text("run", "x") + b"sb", "gives a Name a state"),
    "a node gets slots": (b"ctraining.x\nY\n)\x81N}" + text("__class__", "x") + b"s\x86b", "gives a Node a state"),
    "a tensor gets a state": (STORED + b"}" + text("data", "x") + b"sb", "gives a StoredTensor a state"),
    "a list gets a state": (b"]}" + text("append", "x") + b"sb", "gives a list a state"),
    "a tensor gets items": (STORED + b"K\x00K\x01s", "adds items to a StoredTensor as if that were a dict"),
    "a node gets items": (b"ctraining.x\nY\n)\x81K\x00a", "adds items to a Node as if that were a list"),
    "a dictionary gets appended to": (b"}K\x00a", "adds items to a dict as if that were a list"),
    "an attribute of an allowed name": (text("torch._utils", "_rebuild_parameter.__globals__") + b"\x93", "__globals__"),
    "a name that is almost allowed": (b"ctrainings.x\nY\n", r"asks for trainings\.x\.Y"),
    "a name from a call": (ORDERED + text("system") + b"\x93", r"asks for \{\}\.system"),
    "an old instance": (b"(" + text("touch executed") + b"iposix\nsystem\n", "the instruction INST"),
    "an old object": (b"(cbuiltins\nset\n" + text("a") + b"o", "the instruction OBJ"),
    "an extension": (b"\x82\x01", "the instruction EXT1"),
    "an object with keywords": (b"cbuiltins\nset\n)}\x92", "the instruction NEWOBJ_EX"),
    "a buffer from outside": (b"\x97", "the instruction NEXT_BUFFER"),
    "a persistent id": (text("storage") + b"Q", "something outside of the file"),
    "a persistent id in a line": (b"Pstorage\n", "the instruction PERSID"),
    "a key that is a node": (b"}ctraining.x\nY\n)\x81K\x01s", "a Node for a key"),
    "a key that takes for ever to compare": (b"}" + b")" + b"2\x86" * 60 + b"K\x01s", "DUP|a tuple for a key"),
    "a protocol to come": (b"\x80\x06", "protocol 6"),
    "a foreign encoding": (b"c_codecs\nencode\n" + text("a", "rot13") + b"\x86R", "encodes bytes as 'rot13'"),
    "a type of numpy that holds objects": (b"cnumpy\ndtype\n" + text("O8") + b"\x85R", "numpy's type 'O8'"),
    "a set of lists": (b"cbuiltins\nset\n((]ltR", "a list for a key"),
    "a dictionary of what is no pair": (b"ccollections\nOrderedDict\n((K\x01ltR", "not made of pairs"),
    "an empty stack": (b"", "damaged"),
    "too much on the stack": (b"NN", "damaged"),
    "a parameter of nothing": (REBUILD + b"N\x85R", "no tensor"),
    "a parameter that is no tensor": (REBUILD + b"NNN\x87R", "no tensor"),
    "the memo's far end": (b"N" + b"r" + b"\xff\xff\xff\xff" + b"h\x07", "damaged"),
    "bytes that do not come": (b"\x8e" + struct.pack("<Q", 2**40), "announces more"),
    "text that does not come": (b"\x8d" + struct.pack("<Q", 2**63), "damaged"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_what_pickles_that_nobody_wrote_are_told(tmp_path, name):
    stream, said = STREAMS[name]
    path = tmp_path / "made.pkl"
    path.write_bytes(b"\x80\x04" + stream + b".")
    with pytest.raises(Refused, match=said) as caught:
        quietly(network, path)
    assert "Nothing in it was executed" in str(caught.value)
    assert isinstance(caught.value, FacednerfError)


def test_the_harmless_file_that_the_streams_are_cut_from(tmp_path):
    path = tmp_path / "made.pkl"
    path.write_bytes(b"\x80\x04}" + text("G_ema") + b"}" + text("w") + STORED + b"ss.")
    assert torch.equal(network(path).tensors["w"], torch.ones(2))


def persistent(meta):
    made = Call(official_pickles._reconstruct_persistent_obj, meta)
    return {"G_ema": made}


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("text", "not written as official"),
        ({"type": "class"}, "not written as official"),
        ({"type": "function", "class_name": "X", "state": {}}, "not written as official"),
        ({"type": "class", "class_name": "X", "state": {"_modules": [1]}}, "_modules of a X is no dictionary"),
        ({"type": "class", "class_name": "X", "state": {"_modules": {"a": 1}}}, "a is a int instead of a module"),
        ({"type": "class", "class_name": "X", "state": {"_parameters": {"a": "b"}}}, "a is a str instead of a tensor"),
        ({"type": "class", "class_name": "X", "state": {"_buffers": {1: torch.ones(1)}}}, "no dictionary of names"),
        ({"type": "class", "class_name": "X", "state": {"_init_kwargs": [1]}}, "arguments of X are a list"),
        ({"type": "class", "class_name": "X", "state": {"_init_kwargs": {"a": {1, 2}}}}, "a set stands where"),
    ],
)
def test_networks_that_are_not_as_they_should_be(tmp_path, meta, said):
    with pytest.raises(Refused, match=said):
        network(write(tmp_path / "made.pkl", persistent(meta)))


def endless():
    inside = []
    inside.append(inside)
    return inside


def doubled():
    inside = [0]
    for _ in range(60):
        inside = [inside, inside]
    return inside


@pytest.mark.parametrize("make", [endless, doubled])
@pytest.mark.parametrize("place", ["attribute", "argument"])
def test_what_would_go_on_for_ever(tmp_path, make, place):
    state = {"_init_kwargs": {"a": make()}} if place == "argument" else {"_init_kwargs": {}, "a": make()}
    path = write(tmp_path / "made.pkl", persistent({"type": "class", "class_name": "X", "state": state}))
    with pytest.raises(Refused, match="nested more than"):
        network(path)


def test_modules_that_hold_each_other(tmp_path):
    first = official_pickles.MARCHER()
    first._modules["again"] = first
    with pytest.raises(Refused, match="nested more than"):
        network(write(tmp_path / "made.pkl", {"G_ema": first}))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (2, 2)), (0, (2**40,), (0,)), (0, (2,), (2**62,)), (0, (2, 2), (1,)),
     (-1, (2,), (1,)), (0, (-2,), (1,)), (0, (2.0,), (1,)), (0, (2,), (-1,)), (True, (2,), (1,))],
)  # fmt: skip
def test_tensors_stay_inside_their_storage(tmp_path, offset, size, stride):
    storage = torch.arange(4.0).untyped_storage()
    content = Call(
        torch._utils._rebuild_tensor_v2,
        torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True),
        offset,
        size,
        stride,
        False,
        {},
    )
    with pytest.raises(Refused, match=r"reaches beyond its storage of 4 numbers|a tensor has size"):
        network(write(tmp_path / "made.pkl", {"G_ema": {"w": content}}))


def saved(zipped):
    file = io.BytesIO()
    torch.save({"G_ema": {"w": torch.arange(3.0)}}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def test_a_stream_whose_counts_differ(tmp_path):
    path, data = tmp_path / "made.pt", saved(zipped=False)
    at = data.index(struct.pack("<q3f", 3, 0, 1, 2))
    for count, said in ((2, "says that it has 2"), (-1, "says that it has -1"), (2**40, "says that it has")):
        path.write_bytes(data[:at] + struct.pack("<q", count) + data[at + 8 :])
        with pytest.raises(Refused, match=said):
            network(path)
    path.write_bytes(data[:-4])
    with pytest.raises(Refused, match="announces more"):
        network(path)
    true = data.index(b"\x88", data.index(b"little_endian"))
    path.write_bytes(data[:true] + b"\x89" + data[true + 1 :])
    with pytest.raises(Refused, match="little-endian"):
        network(path)


def archive(path, change, **how):
    """The archive of torch, its entries changed."""
    with zipfile.ZipFile(io.BytesIO(saved(zipped=True))) as old, zipfile.ZipFile(path, "w", **how) as new:
        for name in old.namelist():
            for made, data in change(name, old.read(name)):
                new.writestr(made, data)


def test_archives_that_torch_did_not_write(tmp_path):
    path = tmp_path / "made.pt"
    cases = [
        (lambda name, data: [] if "/data/" in name else [(name, data)], {}, "no storage '0'"),
        (lambda name, data: [(name, data[:-1] if "/data/" in name else data)], {}, "11 bytes instead of 12"),
        (lambda name, data: [(name, b"big" if "byteorder" in name else data)], {}, "not little-endian"),
        (lambda name, data: [(name, data), (f"other/{name}", data)], {}, "2 files data.pkl"),
        (lambda name, data: [(name, data)], {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        (lambda name, data: [], {}, "0 files data.pkl"),
    ]
    for change, how, said in cases:
        archive(path, change, **how)
        with pytest.raises(Refused, match=said):
            quietly(network, path)
    archive(path, lambda name, data: [(name, data)])
    assert torch.equal(network(path).tensors["w"], torch.arange(3.0))


@pytest.mark.parametrize("what", ["official", "zip", "stream"])
def test_damage_is_said_and_nothing_else_happens(tmp_path, what):
    """A file cut anywhere, or with a byte changed anywhere, is read or refused."""
    path = tmp_path / "made.pkl"
    small = {"G_ema": generator({"decoder.net.0.weight": torch.ones(1, 2)}, {"rendering_kwargs": {}})}
    data = write(path, small).read_bytes() if what == "official" else saved(zipped=what == "zip")
    chance = random.Random(7)
    refused = 0
    for _ in range(250):
        at = chance.randrange(len(data))
        damaged = data[:at] if chance.random() < 0.3 else data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        path.write_bytes(damaged)
        try:
            quietly(network, path)
        except InputError:
            refused += 1
    assert 30 < refused < 250


def test_a_file_that_is_no_pickle(tmp_path):
    path = tmp_path / "made.pkl"
    for content in (b"", b"PK\x03\x04", b"\x89PNG\r\n", b"<html>", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(content)
        with pytest.raises(Refused, match=r"damaged, or no checkpoint|the instruction|announces more"):
            quietly(network, path)

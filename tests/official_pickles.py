"""Pickles written as the official checkpoints are, by classes that exist under the official names only while writing.

What the format is, is said in the notes on checkpoints that the reader was written from: networks are a call with their
class's source and state, renderer and decoder stand by reference, and tensors are torch's own.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SOURCE = "import pathlib\npathlib.Path('executed').write_text('the source in a checkpoint was executed')\n"
AXES = torch.tensor(
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
).float()
BUFFERS = ("resample_filter", "noise_const", "w_avg", "dataset_label_std")


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("the official loader's function was called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class EasyDict(dict):
    __module__ = "dnnlib.util"


class Persistent(nn.Module):
    """Pickled with its source."""

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": type(self).__name__, "state": vars(self)}
        return _reconstruct_persistent_obj, (state,)


def by_reference(module: str, name: str) -> type[nn.Module]:
    """A class that stands in the pickle by its name."""
    return type(name, (nn.Module,), {"__module__": module, "__qualname__": name})


RENDERING = "training.volumetric_rendering"
DECODER = by_reference("training.triplane", "OSGDecoder")
RENDERER = by_reference(f"{RENDERING}.renderer", "ImportanceRenderer")
MARCHER = by_reference(f"{RENDERING}.ray_marcher", "MipRayMarcher2")
SAMPLER = by_reference(f"{RENDERING}.ray_sampler", "RaySampler")


def kind(name: str) -> type[nn.Module]:
    """The class of the module of this dotted name in EG3D's generator."""
    known = {
        "": "TriPlaneGenerator",
        "backbone": "Generator",
        "backbone.synthesis": "SynthesisNetwork",
        "backbone.mapping": "MappingNetwork",
        "superresolution": "SuperresolutionHybrid8XDC",
    }
    if name in ("decoder", "decoder.net"):
        return DECODER if name == "decoder" else nn.Sequential
    last = name.rsplit(".", 1)[-1]
    layer = "SynthesisBlock" if last[:1] == "b" and last[-1].isdigit() else "SynthesisLayer"
    return type(known.get(name, layer), (Persistent,), {})


def module_of(tensors: Mapping[str, Tensor], name: str = "") -> nn.Module:
    """Modules that hold these tensors under their dotted names, in their order."""
    made = kind(name)()
    children: dict[str, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        first, dot, rest = path.partition(".")
        if dot:
            children.setdefault(first, {})[rest] = value
        elif first in BUFFERS:
            made.register_buffer(first, value)
        else:
            made.register_parameter(first, nn.Parameter(value, requires_grad=False))
    if "weight" in tensors:
        made.weight_gain = 1 / np.sqrt(np.float64(tensors["weight"][0].numel()))
        made.register_buffer("scratch", torch.ones(2), persistent=False)
        made.bias = made._parameters.get("bias")
    for first, held in children.items():
        if name == "decoder.net" and first == "2":
            made.add_module("1", nn.Softplus())
        made.add_module(first, module_of(held, f"{name}.{first}".lstrip(".")))
    return made


def generator(tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], **attributes: Any) -> nn.Module:
    """EG3D's generator as its training leaves it; attributes such as neural_rendering_resolution."""
    made = module_of(tensors)
    made.renderer = RENDERER()
    made.renderer.ray_marcher = MARCHER()
    made.renderer.plane_axes = AXES
    made.ray_sampler = SAMPLER()
    made._last_planes = None
    made._init_args = ()
    made._init_kwargs = EasyDict({k: EasyDict(v) if isinstance(v, Mapping) else v for k, v in arguments.items()})
    made.rendering_kwargs = dict(arguments["rendering_kwargs"])
    for name, value in attributes.items():
        setattr(made, name, value)
    return made.eval()


@contextmanager
def official_names() -> Iterator[None]:
    """The modules whose names official pickles hold, while writing."""
    persistence, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib.util")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = EasyDict
    made = {"torch_utils.persistence": persistence, "dnnlib.util": util}
    for stub in (DECODER, RENDERER, MARCHER, SAMPLER):
        made.setdefault(stub.__module__, ModuleType(stub.__module__))
        setattr(made[stub.__module__], stub.__name__, stub)
    parents = {name.rsplit(".", depth)[0] for name in made for depth in range(1, name.count(".") + 1)}
    made |= {name: ModuleType(name) for name in parents if name not in made}
    assert not set(made) & set(sys.modules)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    """A pickle of content that holds such modules."""
    with official_names(), path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path

"""Official files, read as data and kept as safetensors: what `fdn weights import` calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from facednerf_arcface.iresnet import FACE_SIZE, IResNet
from facednerf_arcface.irse import IrSe
from facednerf_arcface.recognition import Recognition, recognition
from facednerf_core.errors import InputError
from facednerf_core.files import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

IR_SE50 = "ir_se50.safetensors"
W600K_R50 = "w600k_r50.safetensors"
TOLERANCE = 1e-3  # relative, of an embedding: far above float32's rounding, far below any mistake


def ir_se50(source: Path, folder: Path) -> None:
    """`model_ir_se50.pth`, a state dict, into `ir_se50.safetensors` with the same names.

    Raises:
        InputError: the file is not a state dict, or not an IR-SE network's.
    """
    network = IrSe.from_state_dict(state_dict(source))
    write_tensors(folder / IR_SE50, network.state_dict(), {"source": source.name})


def insightface(source: Path, folder: Path) -> None:
    """insightface's recognition model into `w600k_r50.safetensors`: an ONNX file, or a state dict of `arcface_torch`.

    An ONNX file is turned into a folded IResNet. Where onnxruntime is installed, it and our network then embed one picture
    of noise, and must agree; the file's metadata says whether that was done.

    Raises:
        InputError: the file is neither, or is not an IResNet.
    """
    if source.is_dir():
        held = ", ".join(sorted(path.name for path in source.glob("*.onnx"))) or "none"
        raise InputError(
            f"{source} is a folder; give the recognition model in it, w600k_r50.onnx (ONNX files here: {held})."
        )
    metadata = {"source": source.name}
    if source.suffix.lower() == ".onnx":
        found = recognition(source)
        network = IResNet.from_state_dict(found.tensors)
        apart = difference(source, found, network)
        metadata["onnxruntime"] = "not installed: not compared" if apart is None else f"differs by {apart:.1e}, relative"
    else:
        network = IResNet.from_state_dict(state_dict(source))
    write_tensors(folder / W600K_R50, network.state_dict(), metadata)


def state_dict(source: Path) -> Mapping[str, Tensor]:
    """The tensors of a file that torch or safetensors saved, on the CPU; no code in it is executed.

    Raises:
        InputError: it cannot be read that way, or holds something else than tensors by name.
    """
    if source.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(source)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read {source}: {error}") from error
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        what = f"torch's reader of plain data says {type(error).__name__}"
        raise InputError(f"{source} is not a state dict that can be read without executing it: {what}.") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()) or not found:
        raise InputError(f"{source} holds {type(found).__name__}, not a state dict (tensors by name).")
    return found


def difference(source: Path, found: Recognition, network: IResNet) -> float | None:
    """How far our embedding of a picture of noise is from onnxruntime's, relative to its largest number.

    None where onnxruntime is not installed.

    Raises:
        InputError: the two differ by more than rounding.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    face = torch.rand(1, 3, FACE_SIZE, FACE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    given = {session.get_inputs()[0].name: found.input(face).numpy()}
    expected = torch.from_numpy(session.run(None, given)[0])
    with torch.no_grad():
        apart = float((network(face) - expected).abs().max() / expected.abs().max())
    if not apart <= TOLERANCE:
        raise InputError(f"{source} was read, but onnxruntime's embedding differs from ours by {apart:.1e}, relative.")
    return apart

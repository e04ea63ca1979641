"""Official files of VGG16, which the core's reconstruction term reads, kept as safetensors."""

from __future__ import annotations

from pathlib import Path

from facednerf_arcface import torchscript
from facednerf_arcface.conversion import state_dict
from facednerf_core.errors import InputError
from facednerf_core.files import write_tensors
from facednerf_core.perceptual import from_tensors, named

FILE = "vgg16.safetensors"


def convert(source: Path, folder: Path) -> None:
    """torchvision's `vgg16-397923af.pth` or NVIDIA's `vgg16.pt` into `vgg16.safetensors` by torchvision's names.

    Raises:
        InputError: the file is neither, or its tensors are not a VGG16's.
    """
    tensors = torchscript.read(source) if torchscript.is_archive(source) else state_dict(source)
    if any(name.startswith(torchscript.CONSTANTS) and value.ndim == 4 for name, value in tensors.items()):
        raise InputError(
            f"{source} is a frozen archive: its tensors are constants of its code, and what that makes of them "
            "cannot be told without executing it. Import the archive as it was published."
        )
    try:
        own = {name: value.float() for name, value in named(tensors).items()}
        from_tensors(own)
    except InputError as error:
        raise InputError(f"{source} is not a VGG16: {error}") from error
    write_tensors(folder / FILE, own, {"source": source.name})

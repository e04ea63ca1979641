"""Whether two pictures show the same person, by an ArcFace recognition network (Deng et al. 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from facednerf_arcface.alignment import aligned, by_box, by_landmarks
from facednerf_arcface.iresnet import IResNet
from facednerf_arcface.options import ArcFaceOptions
from facednerf_core.errors import InputError, Unsupported
from facednerf_core.interfaces import Identity
from facednerf_core.terms import Loss, LossFn, Step

if TYPE_CHECKING:
    from torch import Tensor

    from facednerf_core.scene import Rendering, Subject


class ArcFace(Identity):
    """Embeddings of aligned faces; two pictures of one person have embeddings of nearly the same direction."""

    def __init__(self, network: IResNet, options: ArcFaceOptions | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.options = options or ArcFaceOptions()

    def embed(self, image: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Unit vectors (N, V, D) of images (N, V, 3, H, W) in [-1, 1].

        Faces are aligned by landmarks (N, V, K, 2) where given, else cut out by the box of the options.
        """
        places = None if landmarks is None else by_landmarks(landmarks.flatten(0, 1), image.shape[-1] / image.shape[-2])
        found = self._embedding(image.flatten(0, 1), places)
        return found.unflatten(0, image.shape[:2])

    def aim(self, subject: Subject) -> LossFn:
        """How little a rendering resembles the photo (paper Eq. 3): L = 1 - cos(f(x), f(y)), in [0, 2].

        The photo's landmarks give one alignment, for photo and rendering alike: at the photo's camera the same face
        stands in the same place, and a rendering cannot win by moving its eyes. The photo is embedded once.

        Raises:
            Unsupported: the subject has no photo.
        """
        if subject.image is None:
            raise Unsupported("identity needs a photo to compare with; leave it out with --identity none.")
        photo = subject.image[:, 0]
        place = by_box(self.options.box, photo).expand(len(photo), -1, -1)
        if subject.landmarks is not None:
            place = by_landmarks(subject.landmarks[:, 0], photo.shape[-1] / photo.shape[-2])
        with torch.no_grad():
            goal = self._embedding(photo, place)  # (N, D)

        def loss(rendering: Rendering | None, step: Step) -> Loss:
            if rendering is None:
                raise ValueError("identity scores renderings: its term needs a look")
            views = rendering.image.shape[1]
            found = self._embedding(rendering.image.flatten(0, 1), place.repeat_interleave(views, dim=0))
            cosine = (found * goal.repeat_interleave(views, dim=0)).sum(1).unflatten(0, (-1, views)).mean(1)
            return Loss(1 - cosine, {"cosine": float(cosine.detach().mean())})

        return loss

    def _embedding(self, image: Tensor, place: Tensor | None) -> Tensor:
        """Unit vectors (B, D) of images (B, 3, H, W), with the face at `place` (B, 2, 3) or in the box."""
        if place is None:
            place = by_box(self.options.box, image).expand(len(image), -1, -1)
        return functional.normalize(self.network(aligned(image, place)), dim=1)


def load(path: Path, device: torch.device) -> IResNet:
    """An IResNet from a safetensors file of its tensors by insightface's names, of whatever widths.

    Raises:
        InputError: the file cannot be read, or its tensors are not an IResNet's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read an identity network from {path}: {error}") from error
    return from_tensors(tensors, str(path)).to(device)


def from_tensors(tensors: Mapping[str, Tensor], origin: str = "the tensors") -> IResNet:
    """The IResNet whose tensors these are; widths and depth are told by their shapes.

    Raises:
        InputError: they are not an IResNet's.
    """
    units = [_units(tensors, stage) for stage in range(1, 5)]
    if not all(units) or "fc.weight" not in tensors:
        raise InputError(f"{origin} is not an IResNet: it lacks 'fc.weight' or tensors of 'layer1' to 'layer4'.")
    network = IResNet(
        [tensors[f"layer{stage}.0.conv1.weight"].shape[0] for stage in range(1, 5)], units, tensors["fc.weight"].shape[0]
    )
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counters, **tensors}, strict=True)
    except RuntimeError as error:
        raise InputError(f"{origin} is not an IResNet: {error}") from error
    return network.eval().requires_grad_(False)


def _units(tensors: Mapping[str, Tensor], stage: int) -> int:
    """How many residual units a stage has."""
    return len({name for name in tensors if re.fullmatch(rf"layer{stage}\.\d+\.conv1\.weight", name)})

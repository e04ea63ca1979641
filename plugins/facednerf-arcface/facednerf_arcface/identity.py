"""Whether two pictures show the same person, by an ArcFace recognition network (Deng et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from facednerf_arcface.alignment import aligned, by_box, by_landmarks, cropped
from facednerf_arcface.iresnet import IResNet
from facednerf_arcface.irse import IrSe
from facednerf_arcface.options import ArcFaceOptions
from facednerf_core.errors import InputError, Unsupported
from facednerf_core.interfaces import Identity
from facednerf_core.terms import Loss, LossFn, Step

if TYPE_CHECKING:
    from torch import Tensor

    from facednerf_core.scene import Rendering, Subject

Network = IResNet | IrSe


class ArcFace(Identity):
    """Embeddings of aligned faces; two pictures of one person have embeddings of nearly the same direction.

    How a picture is brought to the network is the options' `alignment`, or as the network was trained and is used:
    insightface's IResNet by landmarks, pixel2style2pixel's IR-SE network by a fixed crop.
    """

    def __init__(self, network: Network, options: ArcFaceOptions | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.options = options or ArcFaceOptions()
        self.alignment = network.alignment if self.options.alignment == "auto" else self.options.alignment

    def embed(self, image: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Unit vectors (N, V, D) of images (N, V, 3, H, W) in [-1, 1].

        Faces are aligned by landmarks (N, V, K, 2) where given, else cut out by the box of the options; with the
        alignment "crop" they are cut out by the box in any case.
        """
        flat = image.flatten(0, 1)
        place = self._place(flat, None if landmarks is None else landmarks.flatten(0, 1))
        return self._embedding(flat, place).unflatten(0, image.shape[:2])

    def aim(self, subject: Subject) -> LossFn:
        """How little a rendering resembles the photo (paper Eq. 3): L = 1 - cos(f(x), f(y)), in [0, 2].

        The photo's landmarks give one alignment, for photo and rendering alike: at the photo's camera the same face
        stands in the same place, and a rendering cannot win by moving its eyes. With the alignment "crop" it is the same
        box for all. The photo is embedded once.

        Raises:
            Unsupported: the subject has no photo.
        """
        if subject.image is None:
            raise Unsupported("identity needs a photo to compare with; leave it out with --identity none.")
        photo = subject.image[:, 0]
        place = self._place(photo, None if subject.landmarks is None else subject.landmarks[:, 0])
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

    def _place(self, image: Tensor, landmarks: Tensor | None) -> Tensor:
        """Where the faces of images (B, 3, H, W) lie (B, 2, 3): as landmarks (B, K, 2) say, else in the box."""
        if landmarks is None or self.alignment == "crop":
            return by_box(self.options.box, image).expand(len(image), -1, -1)
        return by_landmarks(landmarks, image.shape[-1] / image.shape[-2], self.options.fit)

    def _embedding(self, image: Tensor, place: Tensor) -> Tensor:
        """Unit vectors (B, D) of images (B, 3, H, W), with the face at `place` (B, 2, 3) unless it is cropped."""
        if self.alignment == "crop":
            faces = cropped(image, self.options.box)
        else:
            faces = aligned(image, place, antialias=self.options.antialias)
        found = self.network(faces)
        # under autocast: the squares of 512 numbers do not fit in half precision
        return functional.normalize(found if found.dtype == torch.float64 else found.float(), dim=1)


def load(path: Path, device: torch.device) -> Network:
    """The network of a safetensors file: an IResNet by insightface's names or an IR-SE network by those of
    `model_ir_se50.pth`, of whatever widths.

    Raises:
        InputError: the file cannot be read, or its tensors are neither network's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read an identity network from {path}: {error}") from error
    return from_tensors(tensors, str(path)).to(device)


def from_tensors(tensors: Mapping[str, Tensor], origin: str = "the tensors") -> Network:
    """The network whose tensors these are; architecture, widths and depth are told by their names and shapes.

    Raises:
        InputError: they are neither an IResNet's nor an IR-SE network's.
    """
    kind: type[Network] = IrSe if "input_layer.0.weight" in tensors else IResNet
    try:
        return kind.from_state_dict(tensors)
    except InputError as error:
        raise InputError(f"{origin} is not a recognition network: {error}") from error

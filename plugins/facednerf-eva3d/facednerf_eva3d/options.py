"""What a user can set: `--option eva3d.body=SMPL_NEUTRAL.pkl`, or [options.eva3d] in TOML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facednerf_core.errors import InputError


@dataclass(frozen=True)
class Eva3dOptions:
    """Which body wears what EVA3D draws, and how densely it is looked at."""

    body: str = "synthetic"  # or the path of your SMPL file (.pkl, .npz), or of a body file (.safetensors)
    template_sdf: str | None = None  # a .npy file of the template's distances; None: derived from the body's mesh
    samples: int | None = None  # of a ray; None: as the weights say
    height: int | None = None  # of the picture, pixels, its proportions kept; None: as the weights say
    rules: Literal["view", "official"] = "view"  # official: what stands behind the camera is drawn too, as by the original

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 2:
            raise InputError(f"eva3d wants at least 2 samples of a ray, not {self.samples}.")
        if self.height is not None and self.height < 8:
            raise InputError(f"eva3d draws pictures at least 8 pixels high, not {self.height}.")
        if self.template_sdf is not None and not self.body.endswith((".pkl", ".npz")):
            raise InputError(f"template_sdf belongs to an SMPL file (.pkl, .npz); the body is {self.body!r}.")

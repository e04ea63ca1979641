"""facednerf: edit, relight, invert and generate 3D heads from one photo and a sentence, with plugins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facednerf_core.loop import optimize as optimize
    from facednerf_core.recipe import Recipe as Recipe
    from facednerf_core.recipe import Weights as Weights
    from facednerf_core.runs import edit as edit
    from facednerf_core.runs import invert as invert
    from facednerf_core.runs import resume as resume

__version__ = "0.1.0"
_HOMES = {"optimize": "loop", "Recipe": "recipe", "Weights": "recipe", "edit": "runs", "invert": "runs", "resume": "runs"}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Names are imported when they are asked for: importing the package never imports torch."""
    if name in _HOMES:
        return getattr(import_module(f"facednerf_core.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'facednerf_core' has no attribute {name!r}")

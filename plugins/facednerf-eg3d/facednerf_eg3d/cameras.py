"""The cameras of the official scripts, which count in numbers of their own: for a comparison with their pictures.

    camera = look_at(official_position(1.4, 1.6, radius=2.7), (0.0, 0.0, 0.2), official_focal(18.837))

with `facednerf_core.views.look_at`, which points a camera as they do. Random cameras add to the two numbers, before they are
given here: a normal times a deviation, or a uniform within plus and minus one.
"""

from __future__ import annotations

import math


def official_position(horizontal: float, vertical: float, *, radius: float) -> tuple[float, float, float]:
    """Where a camera stands, in world units, measured from the world's origin, not from the point that it looks at.

    Args:
        horizontal: radians; pi / 2 is frontal, and larger moves the camera to +x.
        vertical: pi / 2 is level, smaller is higher; clamped to [1e-5, pi - 1e-5]. It is no angle elsewhere: the polar angle
            is arccos(1 - 2 vertical / pi).
        radius: distance from the origin.
    """
    vertical = min(max(vertical, 1e-5), math.pi - 1e-5)
    polar, turn = math.acos(1.0 - 2.0 * vertical / math.pi), math.pi - horizontal
    return (
        radius * math.sin(polar) * math.cos(turn),
        radius * math.cos(polar),
        radius * math.sin(polar) * math.sin(turn),
    )


def official_focal(degrees: float) -> float:
    """The focal length, in image widths, of a field of view as the official helper reckons it, with rounded constants:
    18.837 degrees give 4.2634, where the released networks were trained with 4.2647."""
    return 1.0 / (math.tan(degrees * 3.14159 / 360.0) * 1.414)

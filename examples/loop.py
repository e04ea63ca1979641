"""The loop walked by hand: look at every step, and stop when the inversion no longer gets better."""

from facednerf_core import Recipe, optimize
from facednerf_core.runs import Prepared, prepare

PATIENCE = 15  # steps without an improvement


def inverted(prepared: Prepared) -> float:
    """The best reconstruction loss in W; ends early."""
    best, since = float("inf"), 0
    for step in optimize(prepared.problem):
        loss = step.losses["reconstruction"]
        best, since = (loss, 0) if loss < best else (best, since + 1)
        print(f"{step.stage} {step.index + 1}/{step.total}: reconstruction {loss:.3f}")
        if since >= PATIENCE or step.stage != "invert":
            break
    return best


if __name__ == "__main__":
    print(inverted(prepare(Recipe(task="invert", photo="examples/astronaut.jpg"))))

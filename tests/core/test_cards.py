"""Cards: what they fit, and how options are checked."""

from dataclasses import dataclass

import pytest

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import InputError


@dataclass(frozen=True)
class Options:
    steps: int = 10
    rate: float = 0.5
    mode: str = "slow"


def build(device, weights, **options):
    return options


def card(**changes):
    return Card(**{"name": "probe", "summary": "A probe.", "build": build, "options": Options, **changes})


def test_fits_a_domain_that_it_knows():
    faces = card(domains=("face", "head"))
    assert faces.fits(("head",))
    assert not faces.fits(("cat",))


def test_any_fits_everything_from_either_side():
    assert card().fits(("cat",))
    assert card(domains=("face",)).fits(("any",))


def test_checked_fills_in_defaults_and_converts():
    assert card().checked({"steps": "3"}) == {"steps": 3, "rate": 0.5, "mode": "slow"}


def test_checked_names_an_unknown_option_and_those_that_exist():
    with pytest.raises(InputError, match=r"probe has no option 'stepz'; it has: steps, rate, mode"):
        card().checked({"stepz": 3})


def test_checked_says_what_a_plugin_without_options_has():
    with pytest.raises(InputError, match="it has: none"):
        Card("bare", "Nothing.", build).checked({"steps": 3})


def test_checked_names_the_option_of_a_wrong_kind_and_its_value():
    with pytest.raises(InputError, match=r"option 'rate' of probe: .*'quick'"):
        card().checked({"rate": "quick"})


def test_local_weights_are_asked_by_role(tmp_path):
    weights = WeightsCard("probe/one", "probe", "guidance", "starter", "One.", files={"net": "net.safetensors"})
    assert LocalWeights(weights, {"net": tmp_path})["net"] == tmp_path

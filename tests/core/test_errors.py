"""Errors say what was asked, what exists, and what was probably meant."""

import pytest

from facednerf_core import errors
from facednerf_core.errors import FacednerfError, UnknownName


def test_unknown_name_offers_the_nearest():
    message = str(UnknownName("backbone", "panhead", ["panohead", "eg3d"]))
    assert message == "no backbone named 'panhead'; installed: eg3d, panohead. Did you mean 'panohead'?"


def test_unknown_name_offers_nothing_where_nothing_is_near():
    assert "Did you mean" not in str(UnknownName("backbone", "zzz", ["eg3d"]))


def test_unknown_name_with_nothing_installed_and_a_hint():
    assert str(UnknownName("guidance", "sds", [], "See: fdn plugins")) == (
        "no guidance named 'sds'; installed: none. See: fdn plugins"
    )


@pytest.mark.parametrize(
    "name", ["InputError", "UnknownName", "DomainMismatch", "MissingWeights", "Unsupported", "Diverged", "RunInUse"]
)
def test_every_error_that_a_user_can_mend_is_one_family(name):
    assert issubclass(getattr(errors, name), FacednerfError)

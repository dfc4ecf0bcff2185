"""Polynomials through traced numbers: exact, or refused."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.sizes import tiny
from vdsgen.profile.fit import Basis, NotPolynomialError, choose_basis
from vdsgen.profile.points import Point, candidate_points, monomials_of
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.profile import Peak, Polynomial

MODELS = {
    "text": tiny(),
    "class": tiny(condition="class"),
    "learned": tiny(condition="none", position="learned", max_frames=200, max_patches=300),
    "few learned frames": tiny(position="learned", max_frames=9, max_patches=64),
}


@cache
def basis_of(model: Vdt) -> Basis:
    return choose_basis(candidate_points(model), monomials_of(model), checks=3)


def values(basis: Basis, polynomial: Polynomial) -> list[int]:
    return [polynomial.at(point.batch, point.geometry) for point in basis.points]


def sample_points(model: Vdt) -> list[Point]:
    """Points within the model's limits that no basis is made of."""
    learned = model.position == "learned"
    tokens = 17 if model.condition == "text" else 0
    return [
        Point(batch, Geometry(frames, patches, tokens, 1, patches))
        for batch in (1, 6)
        for frames in (1, 2, 8, 16, 129, 200)
        for patches in (2, 60, 64, 256, 300)
        if not learned or (frames <= model.max_frames and patches <= model.max_patches)
    ]


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_any_polynomial_of_the_monomials_is_found_again(name: str, data: st.DataObject) -> None:
    model = MODELS[name]
    basis = basis_of(model)
    coefficients = st.integers(-(10**9), 10**12)
    terms = {monomial: data.draw(coefficients) for monomial in monomials_of(model)}
    truth = Polynomial(terms=terms)
    found = basis.polynomial(values(basis, truth))
    if basis.monomials == monomials_of(model):
        assert found.terms == {monomial: value for monomial, value in terms.items() if value}
    for point in sample_points(model):
        assert found.at(point.batch, point.geometry) == truth.at(point.batch, point.geometry)


@pytest.mark.parametrize("name", ["text", "class", "learned"])
def test_points_tell_all_monomials_apart_where_limits_allow(name: str) -> None:
    assert basis_of(MODELS[name]).monomials == monomials_of(MODELS[name])


def test_monomials_that_limits_make_proportional_are_left_out() -> None:
    monomials = basis_of(MODELS["few learned frames"]).monomials
    assert "BtS" not in monomials, "up to nine frames are always rounded up to one tile"
    assert "BTS" in monomials


def test_a_number_that_is_no_polynomial_is_refused() -> None:
    basis = basis_of(MODELS["text"])
    truth = values(basis, Polynomial(terms={"BTS": 4, "1": 7}))
    assert basis.polynomial(truth).terms == {"1": 7, "BTS": 4}
    for index in range(len(truth)):
        with pytest.raises(NotPolynomialError):
            basis.polynomial([*truth[:index], truth[index] + 1, *truth[index + 1 :]])


def test_a_peak_is_the_largest_moment_at_every_geometry() -> None:
    basis = basis_of(MODELS["text"])
    moments = [
        {"BTS": 5},
        {"BTS": 3, "BtS": 1},
        {"BTS": 4, "B": 1},
        {"1": 10**6},
        {"BTS": 2},
        {"BL": 100, "BTS": -1},
    ]
    polynomials = [Polynomial(terms=terms) for terms in moments]
    columns = [values(basis, polynomial) for polynomial in polynomials]
    peak = basis.peak(list(zip(*columns, strict=True)))
    for point in sample_points(MODELS["text"]):
        expected = max(polynomial.at(point.batch, point.geometry) for polynomial in polynomials)
        assert peak.at(point.batch, point.geometry) == expected
    assert {"BTS": 2} not in [candidate.terms for candidate in peak.candidates], "always below another"


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["1", "B", "BS", "BTS", "BtS", "BTs", "BL", "Bn", "T"]), st.integers(-50, 50)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_leaving_out_covered_candidates_changes_no_peak(terms: list[dict[str, int]]) -> None:
    basis = basis_of(MODELS["text"])
    polynomials = [Polynomial(terms=one) for one in terms]
    peak = basis.peak(list(zip(*(values(basis, p) for p in polynomials), strict=True)))
    everything = Peak(candidates=tuple(polynomials))
    for point in sample_points(MODELS["text"]):
        assert peak.at(point.batch, point.geometry) == everything.at(point.batch, point.geometry)


def test_rounded_letters_round_up_to_a_tile() -> None:
    where = Geometry(frames=16, patches=200, text_tokens=5, latent_height=1, latent_width=200)
    assert Polynomial(terms={"t": 1}).at(1, where) == 128
    assert Polynomial(terms={"s": 1}).at(1, where) == 256
    assert Polynomial(terms={"n": 1}).at(1, where) == 3200
    assert Polynomial(terms={"BTSL": 2, "1": 3}).at(4, where) == 2 * 4 * 16 * 200 * 5 + 3

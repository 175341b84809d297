"""Persistence against gudhi's alpha complex (an oracle for tests only), ripser, scipy, and finite differences."""

from __future__ import annotations

import gudhi
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ripser import ripser
from scipy.spatial.distance import pdist

from datapruner.errors import DataPrunerError
from datapruner.geometry import complexes
from datapruner.geometry.persistence import (
    circumradii,
    distinct,
    half_lengths,
    loops_of,
    pairs,
    pairs_of_groups,
    persistence_diagrams,
)

LIVES = 1e-8
"""Classes that live shorter are left out of both sides: whether rounding makes one is not a property."""


def cloud(kind, seed, dimensions=2):
    rng = np.random.default_rng([seed, dimensions])
    n = int(rng.integers(3, 120))
    if kind == "uniform":
        return rng.random((n, dimensions))
    if kind == "clustered":
        centres = rng.normal(size=(4, dimensions)) * 5
        return centres[rng.integers(0, 4, n)] + rng.normal(size=(n, dimensions)) * rng.choice([1e-3, 1, 0.1])
    if kind == "grid":
        side = int(rng.integers(2, 8 if dimensions == 2 else 5))
        axes = np.meshgrid(*[np.arange(side)] * dimensions)
        points = np.stack(axes, axis=-1).reshape(-1, dimensions) * float(rng.choice([1.0, 0.1, 1 / 3]))
        return points[rng.random(len(points)) < rng.choice([1.0, 0.7])]
    points = rng.random((n, dimensions))
    return points[rng.integers(0, n, 2 * n)]


def alpha_oracle(points):
    """Gudhi's own alpha complex; its values are squared radii."""
    tree = gudhi.AlphaComplex(points=points).create_simplex_tree()
    tree.compute_persistence(min_persistence=-1)
    out = []
    for dimension in (0, 1):
        found = np.sqrt(tree.persistence_intervals_in_dimension(dimension).reshape(-1, 2))
        out.append(found)
    return out


def compare(ours, theirs, tolerance=1e-9):
    for mine, other in zip(ours, theirs, strict=True):
        kept = [
            np.asarray(held)[np.asarray(held)[:, 1] - np.asarray(held)[:, 0] > LIVES]
            for held in (mine, other)
        ]
        assert len(kept[0]) == len(kept[1])
        by_size = [held[np.lexsort((held[:, 0], held[:, 1].round(9)))] for held in kept]
        finite = np.isfinite(by_size[0][:, 1])
        np.testing.assert_array_equal(finite, np.isfinite(by_size[1][:, 1]))
        if finite.any():
            # Greedy matching after sorting is enough unless deaths tie: then births are sorted within the tie.
            np.testing.assert_allclose(by_size[0][finite, 1], by_size[1][finite, 1], rtol=0, atol=tolerance)
            np.testing.assert_allclose(
                np.sort(by_size[0][finite, 0]), np.sort(by_size[1][finite, 0]), rtol=0, atol=tolerance
            )


@pytest.mark.parametrize("kind", ["uniform", "clustered", "grid", "repeated"])
@pytest.mark.parametrize("seed", range(50))
def test_equals_gudhi_in_the_plane(kind, seed):
    points = cloud(kind, seed)
    compare(persistence_diagrams(points), alpha_oracle(points))


@pytest.mark.parametrize("kind", ["uniform", "clustered", "grid", "repeated"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_gudhi_in_space(kind, seed):
    points = cloud(kind, seed, 3)
    compare(persistence_diagrams(points), alpha_oracle(points))


def test_a_thousand_points_have_hundreds_of_loops():
    """Without the Gabriel rule there would be more than twice as many."""
    points = np.random.default_rng(0).random((1000, 2))
    ours, theirs = persistence_diagrams(points), alpha_oracle(points)
    compare(ours, theirs)
    assert len(ours[1]) > 500


@pytest.mark.parametrize("dimensions", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_h0_equals_ripser(dimensions, seed):
    points = np.random.default_rng(seed).normal(size=(90, dimensions)).astype(np.float32)
    theirs = np.sort(ripser(points, maxdim=0)["dgms"][0][:, 1])
    ours = persistence_diagrams(points, loops=dimensions <= 3)[0][:, 1]
    np.testing.assert_allclose(2 * np.sort(ours), theirs, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3, 5])
@pytest.mark.parametrize("seed", range(6))
def test_rips_equals_ripser(dimensions, seed):
    rng = np.random.default_rng([seed, dimensions])
    points = rng.normal(size=(70, dimensions))
    if seed == 5:
        points = np.concatenate([points, points[:10]])
    theirs = ripser(points, maxdim=1)["dgms"]
    ours = persistence_diagrams(points, complex="rips")
    compare(
        [2 * held for held in ours],
        [theirs[0][theirs[0][:, 1] > 1e-5], theirs[1]],
        tolerance=1e-5,  # ripser computes in float32
    )


def test_alpha_and_rips_share_h0_only():
    points = np.random.default_rng(1).random((200, 2))
    alpha, rips = persistence_diagrams(points), persistence_diagrams(points, complex="rips")
    np.testing.assert_allclose(alpha[0], rips[0])
    assert len(alpha[1]) > 2 * len(rips[1]) > 0


def test_pairs_name_the_simplices_of_the_diagram():
    points = np.random.default_rng(2).random((300, 2))
    found, (h0, h1) = pairs(points), persistence_diagrams(points)
    lengths = np.linalg.norm(points[found.merges[:, 0]] - points[found.merges[:, 1]], axis=1) / 2
    np.testing.assert_allclose(lengths, h0[:-1, 1])
    assert len(found.births) == len(found.deaths) == len(h1)
    assert (np.diff(h0[:-1, 1]) >= 0).all()
    assert (h1[:, 1] > h1[:, 0]).all()


def total(points, *, complex="alpha"):
    """Sum of H0 deaths minus the sum of squared H1 persistences, as the optimiser has it."""
    tensor = torch.tensor(points)
    found = pairs(points, complex=complex)
    births, deaths = loops_of(tensor, found)
    return (half_lengths(tensor, found.merges).sum() - (deaths - births).square().sum()).item()


@pytest.mark.parametrize("complex", ["alpha", "rips"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_finite_differences(complex, dimensions, seed):
    points = np.random.default_rng([seed, dimensions]).random((25, dimensions)) * 3
    tensor = torch.tensor(points, requires_grad=True)
    h0, h1 = persistence_diagrams(tensor, complex=complex)
    (h0[:-1, 1].sum() - (h1[:, 1] - h1[:, 0]).square().sum()).backward()
    step = 1e-6
    for row in range(len(points)):
        for column in range(dimensions):
            up, down = points.copy(), points.copy()
            up[row, column] += step
            down[row, column] -= step
            numeric = (total(up, complex=complex) - total(down, complex=complex)) / (2 * step)
            assert abs(numeric - tensor.grad[row, column].item()) < 1e-6


@pytest.mark.parametrize("n", [2, 3, 4, 10, 500])
def test_every_point_has_a_gradient(n):
    points = torch.tensor(np.random.default_rng(n).normal(size=(n, 2)), requires_grad=True)
    h0, h1 = persistence_diagrams(points)
    (h0[:-1, 1].sum() - (h1[:, 1] - h1[:, 0]).square().sum()).backward()
    assert (points.grad.norm(dim=1) > 0).all()


def test_loops_alone_leave_points_without_gradient():
    points = torch.tensor(np.random.default_rng(0).normal(size=(500, 2)), requires_grad=True)
    h1 = persistence_diagrams(points)[1]
    (h1[:, 1] - h1[:, 0]).square().sum().backward()
    assert (points.grad.norm(dim=1) == 0).double().mean() > 0.03


@pytest.mark.parametrize(
    ("points", "h0", "h1"),
    [
        (np.empty((0, 2)), np.empty((0, 2)), 0),
        ([[1.0, 2.0]], [[0, np.inf]], 0),
        ([[1.0, 2.0]] * 5, [[0, np.inf]], 0),
        ([[0.0, 0.0], [3.0, 4.0]], [[0, 2.5], [0, np.inf]], 0),
        ([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0], [1.0, 1.0]], [[0, 2**0.5 / 2], [0, 2**0.5], [0, np.inf]], 0),
        ([[0.0], [4.0], [1.0]], [[0, 0.5], [0, 1.5], [0, np.inf]], 0),
        ([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 3**0.5 / 2]] * 2 + [[0, np.inf]], 0),
        ([[0.0, 0, 7], [1, 0, 7], [0, 1, 7], [1, 1, 7]], [[0, 0.5]] * 3 + [[0, np.inf]], 1),
        ([[0.0, 0], [1, 0], [0, 1], [1, 1]], [[0, 0.5]] * 3 + [[0, np.inf]], 1),
    ],
)
def test_degenerate_clouds_have_defined_diagrams(points, h0, h1):
    ours = persistence_diagrams(np.asarray(points, dtype=float))
    np.testing.assert_allclose(ours[0], h0)
    assert len(ours[1]) == h1
    if h1:
        np.testing.assert_allclose(ours[1], [[0.5, 2**0.5 / 2]])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=40),
    st.sampled_from([1.0, 1e-6, 1e6, 1 / 3]),
)
def test_small_integer_clouds_equal_gudhi(points, scale):
    array = np.array([*points, (5, 5)], dtype=np.float64)  # gudhi gives nothing for a single point
    ours = [held / scale for held in persistence_diagrams(array * scale)]
    compare(ours, alpha_oracle(array))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1000), st.floats(-3, 3), st.floats(-100, 100))
def test_rotation_and_shift_change_nothing(n, seed, angle, shift):
    points = np.random.default_rng(seed).normal(size=(n, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    compare(persistence_diagrams(points), persistence_diagrams(points @ turn + shift))


def test_nearly_collinear_and_nearly_equal_points():
    rng = np.random.default_rng(0)
    line = np.outer(np.arange(20.0), [1.0, 2.0])
    for size in (0.0, 1e-16, 1e-13):
        ours = persistence_diagrams(line + size * rng.normal(size=line.shape))
        np.testing.assert_allclose(ours[0][:-1, 1], 5**0.5 / 2, rtol=1e-9)
        assert len(ours[0]) == 20
    close = np.concatenate([rng.random((50, 2)), rng.random((50, 2))])
    close[50:] = close[:50] + 1e-15
    ours = persistence_diagrams(close)
    assert len(ours[0]) == len(distinct(close))
    assert np.isfinite(ours[0][:-1]).all()


def test_points_on_a_circle_have_one_triangle_among_several_that_fills_their_loop():
    points = np.array([(0, 2), (0, -3), (1, 2), (-2, 0), (3, 0), (5, 5)], dtype=float)
    compare(persistence_diagrams(points), alpha_oracle(points))


@pytest.mark.parametrize("size", [1e-8, 1e-10, 1e-11, 1e-12, 1e-13])
@pytest.mark.parametrize("seed", range(8))
def test_slivers_of_a_cloud_that_is_nearly_a_line_make_no_loop(size, seed):
    rng = np.random.default_rng(seed)
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    points = np.column_stack([3 * rng.random(50), size * rng.normal(size=50)]) @ turn
    assert persistence_diagrams(points)[1].max(initial=0) < 3


def test_groups_are_measured_as_if_alone():
    rng = np.random.default_rng(3)
    points, group = rng.random((900, 2)), rng.integers(0, 7, 900)
    members = [np.flatnonzero(group == number) for number in range(7)]
    together = pairs_of_groups(points, members)
    for rows, found in zip(members, together, strict=True):
        alone = pairs(points[rows]).shifted(rows)
        for name in ("merges", "births", "deaths"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def test_circumradius_of_known_triangles():
    points = torch.tensor(
        [[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64
    )
    found = circumradii(points, np.array([[0, 1, 2], [0, 3, 4]]))
    np.testing.assert_allclose(found.numpy(), [2.5, 1 / 3**0.5])


def test_refuses_what_it_cannot_do(monkeypatch):
    with pytest.raises(DataPrunerError, match="Point 1 "):
        pairs(np.array([[0.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(DataPrunerError, match="1 to 3 dimensions"):
        pairs(np.zeros((4, 4)))
    with pytest.raises(DataPrunerError, match="shape"):
        pairs(np.zeros(4))
    with pytest.raises(DataPrunerError, match="'alpha' or 'rips'"):
        pairs(np.zeros((4, 2)), complex="cech")
    monkeypatch.setattr(complexes, "PRIM_POINTS", 10)
    with pytest.raises(DataPrunerError, match="spanning tree"):
        pairs(np.random.default_rng(0).random((11, 5)), loops=False)


def test_a_large_rips_complex_is_refused_with_its_cost(monkeypatch):
    points = np.random.default_rng(0).random((60, 3))
    monkeypatch.setattr(complexes, "RIPS_TRIANGLES", 10)
    with pytest.raises(DataPrunerError, match="triangles after collapsing"):
        pairs(points, complex="rips")
    monkeypatch.setattr(complexes, "RIPS_POINTS", 50)
    with pytest.raises(DataPrunerError, match="1,770 edges"):
        pairs(points, complex="rips")


def test_tree_in_many_dimensions_is_minimal():
    points = np.random.default_rng(4).normal(size=(200, 20))
    from scipy.cluster.hierarchy import linkage

    theirs = np.sort(linkage(pdist(points), "single")[:, 2]) / 2
    np.testing.assert_allclose(persistence_diagrams(points, loops=False)[0][:-1, 1], theirs)

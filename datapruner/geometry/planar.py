"""The two sweeps over a planar Delaunay triangulation, compiled: H0 and H1 of its alpha complex.

numba comes with umap-learn. This module is imported when the first cloud is measured, and compiles then: once a
machine, where there is a folder to keep what was compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints


def _compiled(function: Callable[..., Any]) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return njit(nogil=True)(function)


@_compiled
def prepare(
    cloud: Floats, triangles: NDArray[np.int32], neighbours: NDArray[np.int32]
) -> tuple[Floats, NDArray[np.int32], NDArray[np.int32], Floats]:
    """Circumradii of triangles; edges, the triangles beside each (-1: outside), and their alpha values."""
    count = 0
    radii = np.empty(len(triangles))
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        ux, uy = cloud[b, 0] - cloud[a, 0], cloud[b, 1] - cloud[a, 1]
        vx, vy = cloud[c, 0] - cloud[a, 0], cloud[c, 1] - cloud[a, 1]
        wx, wy = cloud[c, 0] - cloud[b, 0], cloud[c, 1] - cloud[b, 1]
        area = abs(ux * vy - uy * vx)
        product = np.sqrt(ux * ux + uy * uy) * np.sqrt(vx * vx + vy * vy) * np.sqrt(wx * wx + wy * wy)
        radii[t] = product / (2 * area) if area > 0 else np.inf
        for j in range(3):
            count += neighbours[t, j] < t
    edges = np.empty((count, 2), np.int32)
    cofaces = np.empty((count, 2), np.int32)
    values = np.empty(count)
    e = 0
    for t in range(len(triangles)):
        for j in range(3):
            other = neighbours[t, j]
            if other >= t:
                continue
            a, b, apex = triangles[t, (j + 1) % 3], triangles[t, (j + 2) % 3], triangles[t, j]
            edges[e, 0], edges[e, 1] = min(a, b), max(a, b)
            cofaces[e, 0], cofaces[e, 1] = t, other
            # Gabriel: no point inside the circle over the edge. Else it enters with its first triangle.
            gabriel = (cloud[a, 0] - cloud[apex, 0]) * (cloud[b, 0] - cloud[apex, 0]) + (
                cloud[a, 1] - cloud[apex, 1]
            ) * (cloud[b, 1] - cloud[apex, 1]) >= 0
            least = radii[t]
            if other >= 0:
                far = triangles[other, 0]
                for k in range(3):
                    if triangles[other, k] != a and triangles[other, k] != b:
                        far = triangles[other, k]
                gabriel &= (cloud[a, 0] - cloud[far, 0]) * (cloud[b, 0] - cloud[far, 0]) + (
                    cloud[a, 1] - cloud[far, 1]
                ) * (cloud[b, 1] - cloud[far, 1]) >= 0
                least = min(least, radii[other])
            if gabriel:
                x, y = cloud[a, 0] - cloud[b, 0], cloud[a, 1] - cloud[b, 1]
                values[e] = min(np.sqrt(x * x + y * y) / 2, least)
            else:
                values[e] = least
            e += 1
    return radii, edges, cofaces, values


@_compiled
def root(parent: NDArray[np.int32], x: int) -> int:
    """Find a node's root, halving the way there."""
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


@_compiled
def sweep(
    n: int, edges: NDArray[np.int32], cofaces: NDArray[np.int32], order: Ints, radii: Floats, loops: bool
) -> tuple[Flags, NDArray[np.int32]]:
    """Mark the edges of the spanning tree, and give for every other one the triangle that fills its loop."""
    merged = np.zeros(len(edges), np.bool_)
    filler = np.full(len(edges), -1, np.int32)
    parent = np.arange(n).astype(np.int32)
    for e in order:
        x, y = root(parent, edges[e, 0]), root(parent, edges[e, 1])
        if x != y:
            merged[e] = True
            parent[x] = y
    if not loops:
        return merged, filler
    # A node's root is its component's oldest triangle: the largest. The last node is the outside.
    outside = len(radii)
    parent = np.arange(outside + 1).astype(np.int32)
    for e in order[::-1]:
        if merged[e]:
            continue
        x = root(parent, cofaces[e, 0])
        y = root(parent, cofaces[e, 1] if cofaces[e, 1] >= 0 else outside)
        if x == y:
            continue
        if y == outside or (x != outside and radii[x] <= radii[y]):
            parent[x] = y
            filler[e] = x
        else:
            parent[y] = x
            filler[e] = y
    return merged, filler


@_compiled
def walk(n: int, merges: Ints) -> Ints:
    """Order points so that what merges early stands together: components are joined end to start, in merge order."""
    parent = np.arange(n).astype(np.int32)
    first, last, after = np.arange(n), np.arange(n), np.full(n, -1)
    for e in range(len(merges)):
        x, y = root(parent, merges[e, 0]), root(parent, merges[e, 1])
        after[last[x]] = first[y]
        last[x] = last[y]
        parent[y] = x
    order = np.empty(n, np.int64)
    place = 0
    for start in range(n):
        if parent[start] == start:
            point = first[start]
            while point >= 0:
                order[place] = point
                point = after[point]
                place += 1
    return order

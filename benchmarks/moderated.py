"""Variances of a few runs each, shrunk towards what all arms of a table have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]

ALIKE = 1e6
"""Degrees of freedom of the common variance from which on all arms count as having the same one."""


def moderated(variances: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Variances of groups of few values, each drawn towards a common one as far as they look alike.

    Published (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3, 3): true variances are taken to
    be scaled inverse chi squared, with d0 degrees of freedom around s0^2, so that what is observed is s0^2 F(d, d0),
    and the posterior is (d0 s0^2 + d s^2) / (d0 + d). Ours: s0 and d0 by maximum likelihood, which heeds how many
    values a variance is of, instead of by moments of logarithms.

    Parameters
    ----------
    variances, freedom : ndarray, shape (groups,)
        Of each group of two values or more: variance with n - 1, and n - 1.

    Returns
    -------
    tuple of ndarray
        The posterior variances, and their degrees of freedom: d0 + d, but never more than all groups have together.
    """
    variances = np.maximum(variances, 1e-300)

    def unlikely(at: Floats) -> float:
        scale, prior = np.exp(at)
        return float(-(stats.f.logpdf(variances / scale, freedom, prior) - at[0]).sum())

    pooled = np.average(variances, weights=freedom)
    fits = [
        optimize.minimize(
            unlikely, [np.log(pooled), start], method="L-BFGS-B", bounds=[(None, None), (-2, np.log(ALIKE))]
        )
        for start in (0.0, 2.0, np.log(ALIKE))
    ]
    scale, prior = np.exp(min(fits, key=lambda fit: fit.fun).x)
    return (prior * scale + freedom * variances) / (prior + freedom), np.minimum(
        prior + freedom, freedom.sum()
    )

"""Quadratic programs over non-negative combinations of gradients, solved on a K x K factor of the Gram by NNLS.

NNLS is the active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, Chapter 23). It ends at the
exact active set and needs neither a step size nor a tolerance.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import lsq_linear, nnls

from toppo.combiners.geometry import cosines, gradient_norms

_GAP = 1e-10
"""Largest optimality gap, over ||b||, of an accepted answer of NNLS. The gap of an exact answer is about K eps."""


def unit_factor(gram: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """A factor E of the correlation matrix R, E'E = R. Column i stands for g_i / ||g_i|| in K coordinates.

    The factor is taken of R, not of G. So each column is accurate relative to its own gradient, however short that is.

    Args:
        gram: G of live tasks.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(cosines(gram))
    factor: np.ndarray = np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * eigenvectors.T
    return factor


def least_squares_in_cone(A: Float[np.ndarray, "n K"], b: Float[np.ndarray, "n"]) -> Float[np.ndarray, "K"]:
    """The z >= 0 that minimises ||A z - b||, with z_i = 0 for a zero column of A."""
    lengths = np.linalg.norm(A, axis=0)
    columns = np.flatnonzero(lengths)
    z = np.zeros(A.shape[1])
    if not len(columns):
        return z
    unit = A[:, columns] / lengths[columns]
    try:
        y = nnls(unit, b, maxiter=100 * len(columns))[0]
        solved = _optimality_gap(unit, b, y) <= _GAP * float(np.linalg.norm(b))
    except RuntimeError:  # NNLS cycled
        solved = False
    if not solved:
        # With dependent columns, scipy 1.12 to 1.17 can stop at a wrong active set without an error.
        y = lsq_linear(unit, b, bounds=(0, np.inf), method="bvls", tol=1e-15).x
    z[columns] = y / lengths[columns]
    return z


def _optimality_gap(A: Float[np.ndarray, "n K"], b: Float[np.ndarray, "n"], z: Float[np.ndarray, "K"]) -> float:
    """Largest violation of the optimality conditions: A'(Az - b) >= 0, with equality where z > 0."""
    gradient = A.T @ (A @ z - b)
    return float(np.where(z > 0, np.abs(gradient), -gradient).max())


def min_norm_point(vectors: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "K"]:
    """The w on the simplex that minimises ||sum_i w_i v_i||, with the v_i the columns of `vectors`.

    NNLS gets V with one more row, filled with l > 0. So it minimises ||V z||^2 + l^2 (sum z - 1)^2 over z >= 0. Write
    z = s w with w on the simplex. The minimum over s grows with ||V w||, so the best z is proportional to the
    best w, whatever l is. The code takes the least ||v_i|| as l, so that all rows have a similar size.
    """
    lengths = np.linalg.norm(vectors, axis=0)
    least = lengths.min()
    if least == 0:
        vertex = np.zeros(len(lengths))
        vertex[lengths.argmin()] = 1.0
        return vertex
    A = np.vstack([vectors, np.full(vectors.shape[1], least)])
    b = np.zeros(len(A))
    b[-1] = least
    z = least_squares_in_cone(A, b)
    w: np.ndarray = z / z.sum()
    return w


def project_on_dual_cone(
    factor: Float[np.ndarray, "K K"], coefficients: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "K"]:
    """Coefficients v of the projection of sum_i u_i e_i on the dual cone {d : <e_i, d> >= 0 for all i}.

    By duality, v minimises ||sum_i v_i e_i|| over v >= u (Quinton and Rey, Jacobian Descent, 2024, Proposition 1).

    Args:
        factor: the vectors e_i, one per column.
        coefficients: u.
    """
    projected: np.ndarray = coefficients + least_squares_in_cone(factor, -factor @ coefficients)
    return projected


def worst_conflict(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
    """Conflict of d = J'w with the worst task, max_i -<g_i, d> / (||g_i|| sum_j |w_j| ||g_j||).

    Args:
        gram: G of live tasks.
        weights: w.

    Returns:
        A number between 0 (no conflict) and 1.
    """
    norms = gradient_norms(gram)
    total = np.abs(weights) @ norms
    if not total > 0:
        return 0.0
    cosine = (gram @ weights) / norms / total
    return float(max(0.0, -cosine.min()))

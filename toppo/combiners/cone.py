"""Quadratic programs over non-negative combinations of gradients, solved on a K x K factor of the Gram by NNLS.

NNLS (Lawson and Hanson, Solving Least Squares Problems, 1974, Chapter 23) is an active-set method: it ends at the exact
active set, and needs neither a step size nor a tolerance.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import lsq_linear, nnls

from toppo.combiners.geometry import cosines, gradient_norms
from toppo.combiners.gram import alive_tasks

_GAP = 1e-10
"""Optimality gap of NNLS, over ||b||, beyond which it is not believed: it ends within some K eps of an exact one."""


def unit_factor(gram: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """E with E'E = R, the correlation matrix: column i stands for g_i / ||g_i||, in K coordinates; 0 for a dead task.

    Of R, not of G: the factor of a task is then accurate relative to that task's own norm, however small.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(cosines(gram))
    factor: np.ndarray = np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * eigenvectors.T
    factor[:, ~alive_tasks(gradient_norms(gram))] = 0.0  # not only nearly so: its direction would be taken for one
    return factor


def least_squares_in_cone(A: Float[np.ndarray, "n K"], b: Float[np.ndarray, "n"]) -> Float[np.ndarray, "K"]:
    """argmin_{z >= 0} ||A z - b||; z_i = 0 for a zero column."""
    lengths = np.linalg.norm(A, axis=0)
    columns = np.flatnonzero(lengths)
    z = np.zeros(A.shape[1])
    if not len(columns):
        return z
    unit = A[:, columns] / lengths[columns]
    try:
        y = nnls(unit, b, maxiter=100 * len(columns))[0]
        solved = _optimality_gap(unit, b, y) <= _GAP * float(np.linalg.norm(b))
    except RuntimeError:  # it cycled
        solved = False
    if not solved:
        # Releases 1.12 to 1.17 of scipy can stop at a wrong active set, without a word, where columns are dependent.
        y = lsq_linear(unit, b, bounds=(0, np.inf), method="bvls", tol=1e-15).x
    z[columns] = y / lengths[columns]
    return z


def _optimality_gap(A: Float[np.ndarray, "n K"], b: Float[np.ndarray, "n"], z: Float[np.ndarray, "K"]) -> float:
    """How far z is from the conditions A'(Az - b) >= 0, with equality where z > 0."""
    gradient = A.T @ (A @ z - b)
    return float(np.where(z > 0, np.abs(gradient), -gradient).max())


def min_norm_point(vectors: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "K"]:
    """The w on the simplex at which ||sum_i w_i v_i|| is least, the columns v_i.

    For z >= 0 with sum s, ||V z||^2 + l^2 (sum z - 1)^2 is least over s at a value that grows with ||V z / s||: so NNLS
    on V with a row l below it finds the direction of w for any l > 0. The least ||v_i|| as l keeps the rows
    commensurate.
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
    """Coefficients v >= u of the projection of sum_i u_i e_i on the dual cone {d : <e_i, d> >= 0 for all i}.

    The e_i are the columns of the factor. By duality (Quinton and Rey, 2024, Proposition 1) v minimises ||sum_i v_i
    e_i|| over v >= u.
    """
    projected: np.ndarray = coefficients + least_squares_in_cone(factor, -factor @ coefficients)
    return projected


def worst_conflict(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
    """max_i -<g_i, d> / (||g_i|| sum_j |w_j| ||g_j||), not less than 0: how far d is from agreeing with every task."""
    norms = gradient_norms(gram)
    alive = alive_tasks(norms)
    total = np.abs(weights) @ norms
    if not total > 0:
        return 0.0
    cosine = (gram @ weights)[alive] / norms[alive] / total
    return float(max(0.0, -cosine.min()))

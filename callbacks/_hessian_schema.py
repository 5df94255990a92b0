"""What a row of the Hessian's spectrum holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landscape.callbacks._axes import over_examples
from landscape.callbacks._hessian_layers import GAP_VARIABLES, LAYER_VARIABLES
from landscape.record import Coordinate, Variable


def hessian_variables(tracked: bool, layers: bool = False, gap: bool = False) -> list[Variable]:
    """Return the variables of the group.

    Args:
        tracked: Whether eigenpairs are followed from event to event, and how well.
        layers: Whether single layers are measured.
        gap: Whether the distance to the Gauss-Newton matrix is measured.

    Returns:
        The variables besides the common ones.
    """
    variables = [
        Variable("lambda_max", description="largest eigenvalue (not invariant to reparametrisation)"),
        over_examples("lambda_max"),
        Variable("lambda_min", description="smallest, most negative eigenvalue"),
        over_examples("lambda_min"),
    ]
    for end, dim in (("top", "eigenvalue"), ("bottom", "eigenvalue_bottom")):
        variables += [
            Variable(f"eigenvalues_{end}", (dim,), description=f"eigenvalues at the {end}, outermost first"),
            over_examples(f"eigenvalues_{end}", (dim,)),
            Variable(f"residuals_{end}", (dim,), description="norm of Hv - lambda v for the unit eigenvector v"),
            Variable(f"converged_{end}", (dim,), "i1", description="1 where the residual met the tolerance"),
        ]
    variables += [
        Variable("eigenvalue_tolerance", description="relative accuracy that the eigenvalues were searched to"),
        Variable("density_nodes", ("probe", "node"), description="quadrature nodes of the spectral density"),
        Variable("density_weights", ("probe", "node"), description="their weights; those of a probe sum to 1"),
        Variable("trace", description="trace of the Hessian (not invariant to reparametrisation)"),
        Variable("trace_stderr", description="standard error of the trace over probes"),
        over_examples("trace"),
        Variable("n_eff", ("z",), description="effective dimensionality, the sum of l/(l+z) over eigenvalues l > 0"),
        Variable("n_eff_complement", ("z",), description="the smaller of examples and parameters, less n_eff"),
        Variable("n_eff_stderr", ("z",), description="standard error of both over probes"),
        over_examples("n_eff", ("z",)),
        Variable("condition_number", description="largest by smallest magnitude of the eigenvalues at the top"),
        over_examples("condition_number"),
        Variable("negative_share", description="sum of |l| over l < 0 by the sum over all eigenvalues l"),
        Variable("negative_share_stderr", description="its standard error over probes"),
        over_examples("negative_share"),
        Variable("spectral_entropy", description="Shannon entropy (order 1) of |l| as shares of their sum, in nats"),
        Variable("spectral_entropy_stderr", description="its standard error over probes"),
        over_examples("spectral_entropy"),
        Variable("n_matvecs", (), "i8", description="Hessian-vector products spent"),
    ]
    if tracked:
        variables += [
            Variable(
                "subspace_angles", ("eigenvalue",), units="rad", description="principal angles since the last event"
            ),
            Variable("gradient_share", description="squared share of the gradient in the top eigenvectors' subspace"),
            Variable("correction", description="largest relative correction of a value by residuals; NaN if cold"),
            Variable("cold_start", (), "i1", description="1 where the eigenpairs were found afresh"),
        ]
    return variables + LAYER_VARIABLES * layers + GAP_VARIABLES * gap


def hessian_coordinates(
    k: int, k_bottom: int, probes: int, nodes: int, z: Sequence[float], layers: Sequence[str] = ()
) -> list[Coordinate]:
    """Return the coordinates of the group: eigenvalues at both ends, most probes and nodes, scales of N_eff, layers."""
    named = [Coordinate("layer", layers, description="module that holds the parameters; empty for the outermost")]
    return named * bool(layers) + [
        Coordinate("eigenvalue", np.arange(k), description="rank from the top"),
        Coordinate("eigenvalue_bottom", np.arange(k_bottom), description="rank from the bottom"),
        Coordinate("probe", np.arange(probes), description="probe of the quadrature"),
        Coordinate("node", np.arange(nodes), description="node of a probe's quadrature; unused ones have weight 0"),
        Coordinate("z", z, description="scale of the effective dimensionality, in units of eigenvalues"),
    ]

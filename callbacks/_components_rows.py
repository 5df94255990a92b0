"""How the principal components of a trajectory stand in the run file."""

from __future__ import annotations

from typing import Any

from landscape.averaging import OnlinePCA
from landscape.averaging._components import GROUP_SUFFIX, ComponentsUpdate
from landscape.record import Coordinate, GroupSchema, Variable


def components_variables() -> list[Variable]:
    """Return the variables that an event adds to the trajectory's group: a few numbers a component."""
    one, two = ("component",), ("component", "former_component")
    return [
        Variable("components_coordinates", one, description="weights in the principal components after this event"),
        Variable("components_turn", two, description="T: former coordinates y become T y + components_shift"),
        Variable("components_shift", one, description="see components_turn"),
        Variable("components_residual", description="l2 distance of the weights from the plane of the components"),
    ]


def components_axes(k: int) -> list[Coordinate]:
    """Return the dimensions of those variables."""
    return [
        Coordinate("component", k, description="principal component, by falling variance"),
        Coordinate("former_component", k, description="principal component before this event"),
    ]


def components_schema(group: str, k: int, parameters: int) -> GroupSchema:
    """Return the group that holds the components themselves, a row when a fit ends."""
    variables = [
        Variable("components", ("component", "parameter"), "f4", description="orthonormal principal components"),
        Variable("mean", ("parameter",), "f4", description="mean of the weights, from which coordinates are counted"),
        Variable("variance", ("component",), description="variance of the weights along each component"),
        Variable("n", (), "i8", description="number of events behind them"),
    ]
    axes = [
        components_axes(k)[0],
        Coordinate("parameter", parameters, description="index in the flat vector"),
    ]
    return GroupSchema(
        group + GROUP_SUFFIX, "principal components of the trajectory when the fit ends", variables, axes
    )


def components_row(pca: OnlinePCA) -> dict[str, Any]:
    """Return the row of that group."""
    return {
        "components": pca.components.numpy(),
        "mean": pca.mean.numpy(),
        "variance": pca.variance.numpy(),
        "n": pca.count,
    }


def event_row(update: ComponentsUpdate) -> dict[str, Any]:
    """Return what one event adds to the trajectory's row."""
    return {
        "components_coordinates": update.coordinates,
        "components_turn": update.turn,
        "components_shift": update.shift,
        "components_residual": update.residual,
    }

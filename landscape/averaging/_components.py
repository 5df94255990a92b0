"""Principal components of a trajectory, kept along while it is made: long trainings need not store all weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from landscape._errors import FileError
from landscape.averaging._window import RunLike, opened

GROUP_SUFFIX = "_components"


@dataclasses.dataclass(frozen=True, eq=False)
class ComponentsUpdate:
    """How one more vector changed the components, in numbers per component.

    Attributes:
        coordinates: The new vector's place in the new components, shape (k,).
        turn: Matrix T, shape (k, k): a former vector's coordinates y become T y + shift.
        shift: Shape (k,).
        residual: l2 distance of the new vector from the plane of the new components through the new mean.
    """

    coordinates: np.ndarray
    turn: np.ndarray
    shift: np.ndarray
    residual: float


class OnlinePCA:
    """The k leading principal components of vectors given one after another.

    The centred vectors' singular value decomposition is updated with each vector, and its smallest value dropped where
    there are more than k (Ross et al. 2008, with the mean's own move as one row). Exact as long as the vectors, less
    their mean, span k dimensions at most; else the dropped ones are missing from later updates.

    Memory: k + 1 vectors of the first one's type.

    Args:
        k: Number of components.

    Source: Ross, Lim, Lin & Yang 2008, doi:10.1007/s11263-007-0075-7.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; there must be at least one component")
        self.k = k
        self.count = 0
        self._mean = torch.zeros(0)
        self._basis = torch.zeros((0, 0))
        self._singular = torch.zeros(0, dtype=torch.float64)

    @property
    def mean(self) -> torch.Tensor:
        """Mean of the vectors, shape (P,)."""
        return self._mean

    @property
    def components(self) -> torch.Tensor:
        """Orthonormal rows by falling variance, shape (k, P); rows of zeros where there are fewer."""
        return self._basis

    @property
    def variance(self) -> torch.Tensor:
        """Variance along each component, with n − 1, shape (k,), float64."""
        return self._singular**2 / max(1, self.count - 1)

    def update(self, vector: torch.Tensor) -> ComponentsUpdate:
        """Take one more vector in.

        Args:
            vector: Flat weights, shape (P,).

        Returns:
            Its coordinates, and what becomes of those of former vectors.
        """
        new = torch.as_tensor(vector).detach()
        zeros = np.zeros(self.k)
        if not self.count:
            self.count = 1
            self._mean = new.clone()
            self._basis = torch.zeros((self.k, len(new)), dtype=new.dtype, device=new.device)
            self._singular = torch.zeros(self.k, dtype=torch.float64)
            return ComponentsUpdate(zeros, np.eye(self.k), zeros, 0.0)
        n = self.count
        rest = new - self._mean
        move = rest.clone()
        inside = torch.zeros(self.k, dtype=torch.float64)
        for _ in range(2):  # once more for the digits that the first subtraction loses
            part = self._basis @ rest
            rest -= part @ self._basis
            inside += part.double().cpu()
        height = torch.linalg.vector_norm(rest.double()).cpu()
        # What is left after the components have taken everything is rounding, and no direction.
        height = torch.where(height > 1e-6 * torch.linalg.vector_norm(move.double()).cpu(), height, 0.0)
        direction = rest / height.to(rest) if height > 0 else torch.zeros_like(rest)
        place = torch.cat([inside, height[None]])
        core = torch.zeros((self.k + 1, self.k + 1), dtype=torch.float64)
        core[: self.k, : self.k] = torch.diag(self._singular)
        core[self.k] = (n / (n + 1)) ** 0.5 * place
        _, values, rows = torch.linalg.svd(core)
        rows[values <= 1e-12 * values[0]] = 0.0
        turn = rows[: self.k]
        mixing = turn.to(self._basis)
        self._basis = torch.addr(mixing[:, : self.k] @ self._basis, mixing[:, self.k], direction)
        self._singular = torch.where(values[: self.k] > 1e-12 * values[0], values[: self.k], 0.0)
        self._mean = self._mean + move / (n + 1)
        self.count = n + 1
        coordinates = turn @ place * (n / (n + 1))
        missed = (place * (n / (n + 1))).square().sum() - coordinates.square().sum()
        return ComponentsUpdate(
            coordinates.numpy(),
            turn[:, : self.k].numpy(),
            -(turn @ place).numpy() / (n + 1),
            float(missed.clamp(min=0).sqrt()),
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything as plain tensors, for a checkpoint."""
        return {
            "count": torch.tensor(self.count),
            "mean": self._mean.clone(),
            "basis": self._basis.clone(),
            "singular": self._singular.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.count = int(state["count"])
        self._mean, self._basis = state["mean"].clone(), state["basis"].clone()
        self._singular = state["singular"].clone()


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryComponents:
    """A training seen in the principal components of its own weights.

    Attributes:
        steps: Optimizer steps of the events, shape (n,).
        coordinates: Place of the weights at each, in the last components, shape (n, k).
        residuals: l2 distance of the weights from the plane of the components at their own time, shape (n,).
        train_loss: True loss at each, NaN where it was not measured, shape (n,).
        mean: What the coordinates are counted from, shape (P,); None where the training did not end.
        components: Orthonormal rows, shape (k, P); None where the training did not end.
        variance: Variance along each component, shape (k,); None where the training did not end.
    """

    steps: np.ndarray
    coordinates: np.ndarray
    residuals: np.ndarray
    train_loss: np.ndarray
    mean: np.ndarray | None
    components: np.ndarray | None
    variance: np.ndarray | None


def recorded_components(run: RunLike, group: str = "swa_trajectory") -> TrajectoryComponents:
    """Read the principal components that `SWATrajectory(components=k)` kept along.

    Each event stores its coordinates in the components of its time, and how those before turned; here all are turned
    into the last event's. So the coordinates of a training that was killed can be read too.

    Args:
        run: The run, or the path of its file.
        group: Name of the trajectory's group.

    Returns:
        The trajectory in its components.

    Raises:
        FileError: The run has no such group, or it was recorded without components.
    """
    file = opened(run)
    contents = file._source.read([group], lambda schema: [n for n in schema.all_variables if n in _READ])[group]
    if "components_turn" not in contents.rows:
        raise FileError(f"{file.path} was recorded without components; use SWATrajectory(components=8), say.")
    # A row that failed, in part or as a whole, has its components where the weights could be read.
    good = np.isfinite(contents.rows["components_residual"])
    rows = {name: values[good] for name, values in contents.rows.items()}
    coordinates = np.empty_like(rows["components_coordinates"])
    turn, shift = np.eye(coordinates.shape[1]), np.zeros(coordinates.shape[1])
    for index in reversed(range(len(coordinates))):
        coordinates[index] = turn @ rows["components_coordinates"][index] + shift
        shift = shift + turn @ rows["components_shift"][index]
        turn = turn @ rows["components_turn"][index]
    last: dict[str, Any] = dict.fromkeys(("mean", "components", "variance"))
    if group + GROUP_SUFFIX in file.groups:
        final = file.dataset(group + GROUP_SUFFIX)
        if final.sizes["step"] and len(rows["step"]) and final["step"].values[-1] >= rows["step"][-1]:
            last = {name: final[name].values[-1] for name in last}
    return TrajectoryComponents(rows["step"], coordinates, rows["components_residual"], rows["train_loss"], **last)


_READ = (
    "train_loss",
    "components_coordinates",
    "components_turn",
    "components_shift",
    "components_residual",
)

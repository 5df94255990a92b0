"""The loss on lines and planes through weight space, and trainings projected onto them."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_directions": [
            "Directions",
            "given_directions",
            "hessian_directions",
            "normalize",
            "plane_directions",
            "random_directions",
        ],
        "_projection": ["Projection", "project", "project_run"],
        "_surface": ["Surface", "loss_surface"],
        "_trajectory": ["trajectory_directions"],
    },
)

__all__ = [
    "Directions",
    "Projection",
    "Surface",
    "given_directions",
    "hessian_directions",
    "loss_surface",
    "normalize",
    "plane_directions",
    "project",
    "project_run",
    "random_directions",
    "trajectory_directions",
]

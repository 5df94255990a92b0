"""Loss, gradient and error rate over all batches, and what each batch contributes to the loss."""

from __future__ import annotations

import torch

from landscape._batch_losses import BatchLosses
from landscape._results import Evaluation


class Evaluations(BatchLosses):
    """The mean loss over the examples of held batches, evaluated at any point."""

    def loss(self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the mean loss over all examples.

        Args:
            vector: Flat parameters, shape (P,); by default the model's present ones.
            buffers: Buffers to substitute by name, such as recomputed batch-normalisation statistics.

        Returns:
            A scalar tensor without graph.
        """
        return self.loss_shares(vector, buffers).sum().to(self.dtype)

    def loss_shares(
        self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Return what each batch contributes to `loss`, shape (batches,), float64; arguments as there."""
        with self.session(), self.without_graph():
            parameters = self.present(self._at(vector))
            shares = torch.zeros(len(self.batches), device=self.device, dtype=torch.float64)
            with self.processes.summed(shares), self._kernels(forward=True):
                for index in self.counted:
                    shares[index] = self._weights[index] * self.batch_loss(index, parameters, buffers).detach().double()
            return shares

    def gradient(self, vector: torch.Tensor | None = None) -> torch.Tensor:
        """Return the gradient of the mean loss, shape (P,).

        Args:
            vector: Flat parameters, shape (P,); by default the model's present ones.

        Returns:
            A flat tensor without graph.
        """
        return self.loss_and_gradient(vector)[1]

    def loss_and_gradient(self, vector: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss and its gradient, shape (P,), from one pass over the batches."""
        shares, gradient = self.shares_and_gradient(vector)
        return shares.sum().to(self.dtype), gradient

    def shares_and_gradient(self, vector: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what each batch contributes to the loss, shape (batches,), float64, and the gradient, shape (P,)."""
        with self.session():
            parameters = self._tensors.parameters(self._at(vector), grad=True)
            shares = torch.zeros(len(self.batches), device=self.device, dtype=torch.float64)
            graphs = torch.zeros((), device=self.device)  # batches whose loss has a graph, of all processes
            own = 0
            gradient = torch.zeros(self.n_parameters, device=self.device, dtype=self.dtype)
            with self.processes.summed(shares, graphs, gradient):
                for index in self.counted:
                    loss = self._weights[index] * self.batch_loss(index, parameters)
                    shares[index] = loss.detach().double()
                    if loss.requires_grad:
                        gradient += self.flatten(
                            torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                        )
                        own += 1
                graphs += own
            # Where this process has a graph it need not ask, for which it would wait for the device.
            self.require_graph(own > 0 or (self.processes.size > 1 and bool(graphs)))
            return shares, gradient

    def evaluate(
        self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None
    ) -> Evaluation:
        """Return loss and error rate over all examples from one pass; arguments as in `loss`."""
        loss, wrong, counted = self.sums(vector, buffers).tolist()
        return Evaluation(loss, wrong / counted if counted else float("nan"))

    def sums(self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return what `evaluate` is made of, without waiting for the device; arguments as in `loss`.

        Returns:
            The mean loss, the number of wrong targets and the number of classified ones, shape (3,), float64.
        """
        with self.session(), self.without_graph():
            parameters = self.present(self._at(vector))
            sums = torch.zeros(3, device=self.device, dtype=torch.float64)
            with self.processes.summed(sums), self._kernels(forward=True):
                for index in self.counted:
                    loss, observer = self._watched_loss(index, parameters, buffers)
                    sums[0] += self._weights[index] * loss.double()
                    observer.add_to(sums[1:])
            return sums

    def _at(self, vector: torch.Tensor | None) -> torch.Tensor | None:
        return self._point if vector is None else vector

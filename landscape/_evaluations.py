"""Loss, gradient and error rate over all batches, and what each batch contributes to the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch

from landscape._batch_losses import BatchLosses
from landscape._results import Evaluation
from landscape._sampling_error import of_ratio, of_shares


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
        return self._differentiated(vector, None, ())[:2]

    def gradient_by_group(
        self, read: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], vector: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the gradient, and what a linear function reads off the part that each group of batches has in it.

        Args:
            read: A linear function of a vector, shape (P,).
            shape: Shape of what it returns.
            vector: Flat parameters, shape (P,); by default the model's present ones.

        Returns:
            The gradient, shape (P,), and the readings, shape (groups, ...), which add up to `read` of the gradient;
            None instead where the groups are not known (`clusters`).
        """
        return self._differentiated(vector, read, shape)[1:]

    def _differentiated(
        self, vector: torch.Tensor | None, read: Callable[[torch.Tensor], torch.Tensor] | None, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the batches' shares in the loss, the gradient, and what was read of each group's part in it."""
        with self.session():
            parameters = self._tensors.parameters(self._at(vector), grad=True)
            shares = torch.zeros(len(self.batches), device=self.device, dtype=torch.float64)
            graphs = torch.zeros((), device=self.device)  # batches whose loss has a graph, of all processes
            own = 0
            gradient = torch.zeros(self.n_parameters, device=self.device, dtype=self.dtype)
            clusters, readings = self.clusters, None
            if read is not None and clusters is not None:
                readings = gradient.new_zeros((clusters.count, *shape))
            with self.processes.summed(shares, graphs, gradient, *([] if readings is None else [readings])):
                for index in self.counted:
                    loss = self._weights[index] * self.batch_loss(index, parameters)
                    shares[index] = loss.detach().double()
                    if loss.requires_grad:
                        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                        if readings is not None and read is not None and clusters is not None:
                            part = self.flatten(found)
                            gradient += part
                            readings[clusters.group[index]] += read(part)
                            del part
                        else:
                            self.add(gradient, found)
                        del found  # before the next batch is differentiated
                        own += 1
                graphs += own
            # Where this process has a graph it need not ask, for which it would wait for the device.
            self.require_graph(own > 0 or (self.processes.size > 1 and bool(graphs)))
            return shares, gradient, readings

    def evaluate(
        self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None
    ) -> Evaluation:
        """Return loss and error rate over all examples from one pass, with their standard errors over examples.

        Arguments as in `loss`.
        """
        losses, wrong, counted = self.tallies(vector, buffers).cpu().numpy().T
        total = counted.sum()
        errors = float(of_shares(self.clusters, losses)), of_ratio(self.clusters, wrong, counted)
        return Evaluation(float(losses.sum()), float(wrong.sum() / total) if total else float("nan"), *errors)

    def tallies(
        self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Return what each batch adds to the sums behind `evaluate`, without waiting for the device.

        Arguments as in `loss`.

        Returns:
            Shape (batches, 3), float64: the share in the mean loss, the number of wrong targets and that of classified
            ones.
        """
        with self.session(), self.without_graph():
            parameters = self.present(self._at(vector))
            sums = torch.zeros((len(self.batches), 3), device=self.device, dtype=torch.float64)
            with self.processes.summed(sums), self._kernels(forward=True):
                for index in self.counted:
                    loss, observer = self._watched_loss(index, parameters, buffers)
                    sums[index, 0] = self._weights[index] * loss.double()
                    observer.add_to(sums[index, 1:])
            return sums

    def _at(self, vector: torch.Tensor | None) -> torch.Tensor | None:
        return self._point if vector is None else vector

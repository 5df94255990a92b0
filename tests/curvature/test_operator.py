from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from landscape import MeasurementError
from landscape.curvature._dense import DenseOperator


@pytest.fixture
def operator(with_eigenvalues):
    return with_eigenvalues(np.linspace(-1, 2, 7))


def test_vectors_and_blocks(operator):
    block = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(operator @ block, operator.matrix @ block)
    torch.testing.assert_close(operator @ block[:, 0], operator.matrix @ block[:, 0])
    assert operator.n_matvecs == 4
    assert (operator @ torch.empty(7, 0, dtype=torch.float64)).shape == (7, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out(operator, dtype):
    vector = np.ones(7, dtype=dtype)
    product = operator @ vector
    assert product.dtype == dtype
    np.testing.assert_allclose(product, operator.matrix.numpy() @ vector, rtol=1e-6)
    assert (operator @ torch.ones(7)).dtype == torch.float32
    assert (operator @ np.ones(7, dtype=int)).dtype == np.float64


def test_scipy_operator(operator):
    values = scipy.sparse.linalg.eigsh(operator.to_scipy(), k=2, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(values), [1.5, 2.0], rtol=1e-9)
    np.testing.assert_allclose(operator.to_scipy() @ np.eye(7), operator.matrix.numpy(), atol=1e-14)


def test_dense_is_symmetric(operator):
    assert torch.equal(operator.dense(), operator.dense().T)
    torch.testing.assert_close(operator.dense(), operator.matrix)


def test_refusals(operator):
    with pytest.raises(ValueError, match=r"shape \(7, 7\) cannot multiply an array of shape \(6,\)"):
        operator @ torch.ones(6)
    with pytest.raises(MeasurementError, match=r"product is not finite.*look at the loss"):
        DenseOperator(torch.full((2, 2), torch.nan)) @ torch.ones(2)
    assert "P=7" in repr(operator)

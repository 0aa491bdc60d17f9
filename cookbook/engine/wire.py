"""Tensors and token ids as the SDK's messages carry them, checked on the way in.

Owns: numbers on the wire, little-endian blobs, dense or sparse. Schema modules come from the
`tinker` package, so they stay true as the SDK moves.
"""

import math

import numpy as np
from tinker.proto import tinker_public_pb2 as pb

from cookbook.engine.config import DecoderConfig
from cookbook.engine.errors import UserError

DTYPES = {pb.DTYPE_FLOAT32: np.dtype("<f4"), pb.DTYPE_INT64: np.dtype("<i8")}


def array_of(name: str, tensor: pb.Tensor) -> np.ndarray:
    """Return a tensor as a dense array; missing entries of a sparse one are 0.

    Raises:
        UserError: another dtype, or values that do not fit the shape.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UserError(f"{name} has dtype {pb.DType.Name(tensor.dtype)}; use float32 or int64")
    shape = tuple(tensor.shape)
    if tensor.WhichOneof("encoding") == "sparse_csr":
        values = np.frombuffer(tensor.sparse_csr.values, dtype)
        row_ends = np.frombuffer(tensor.sparse_csr.crow_indices, "<i8")
        columns = np.frombuffer(tensor.sparse_csr.col_indices, "<i8")
        return densified(name, values, row_ends, columns, shape, missing=0)
    values = np.frombuffer(tensor.dense, dtype)
    if shape and math.prod(shape) != values.size:
        raise UserError(f"{name} has {values.size} values for shape {shape}")
    return values.reshape(shape) if shape else values


def densified(
    name: str,
    values: np.ndarray,
    row_ends: np.ndarray,
    columns: np.ndarray,
    shape: tuple[int, ...],
    missing: int,
) -> np.ndarray:
    """Return the dense array of a matrix in compressed rows, `missing` where nothing is listed.

    Args:
        name: what a UserError calls it.
        values: (nnz,).
        row_ends: (rows + 1,), where each row's values start, and the end.
        columns: (nnz,).
        shape: (rows, columns).
        missing: the value of entries that are not listed.
    """
    fits = (
        len(shape) == 2
        and len(row_ends) == shape[0] + 1
        and len(values) == len(columns) == row_ends[-1]
        and bool(np.all(np.diff(row_ends) >= 0))
        and bool(np.all((columns >= 0) & (columns < shape[1])))
    )
    if not fits:
        raise UserError(f"{name} is a sparse tensor whose indices do not fit its shape {shape}")
    dense = np.full(shape, missing, values.dtype)
    dense[np.repeat(np.arange(shape[0]), np.diff(row_ends)), columns] = values
    return dense


def check_tokens(name: str, tokens: np.ndarray, config: DecoderConfig) -> None:
    """Raise a UserError unless there are tokens and all are ids of the vocabulary."""
    if tokens.size == 0:
        raise UserError(f"{name} is empty; at least one token is needed")
    bad = tokens[(tokens < 0) | (tokens >= config.vocab_size)]
    if bad.size:
        raise UserError(f"{name} holds token {bad[0]}; ids are 0 to {config.vocab_size - 1}")

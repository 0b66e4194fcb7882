"""Q8_0: blocks of 32 values as an F16 scale and 32 signed bytes."""

import numpy as np
import torch

BLOCK = 32


def q8_0(matrix):
    """(scales F16 (rows, blocks), bytes int8 (rows, blocks, 32)) of an FP32 matrix whose rows are whole blocks."""
    blocks = np.asarray(matrix, np.float32).reshape(matrix.shape[0], -1, BLOCK)
    scales = (np.abs(blocks).max(-1) / 127).astype(np.float16)
    inverse = np.divide(1, scales.astype(np.float32), where=scales > 0, out=np.zeros(scales.shape, np.float32))
    return scales, np.clip(np.rint(blocks * inverse[..., None]), -127, 127).astype(np.int8)


def q8_0_round_trip(matrix):
    """The values that an engine reads back."""
    scales, values = q8_0(matrix.numpy())
    return torch.from_numpy((scales.astype(np.float32)[..., None] * values).reshape(matrix.shape))


def q8_0_bytes(matrix):
    scales, values = q8_0(matrix)
    blocks = np.zeros(values.shape[:2], dtype=[("d", "<f2"), ("qs", "i1", BLOCK)])
    blocks["d"], blocks["qs"] = scales, values
    return blocks.tobytes()

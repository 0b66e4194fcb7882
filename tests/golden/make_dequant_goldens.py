#!/usr/bin/env python3
"""Writes dequant/<TYPE>.bin: random blocks of every weight format and their values according to gguf-py.

Needs numpy and gguf (made with gguf 0.19.0, numpy 2.4.6). Layout of a file, little-endian:
u32 blocks, u32 bytes per block, u32 elements per block, the blocks, the values as FP32.

The blocks are random bytes with finite scales. d runs through zero, negative zero, negative values and
subnormals; the six-bit and int8 scales are uniform, so they include negative ones and ones above 15.
"""
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize

# Byte offsets of the F16 fields (d, m, dmin) of each block.
HALF_FIELDS = {
    Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.IQ4_NL: [0],
    Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_XS: [0],
}
SPECIAL = np.array([0.0, -0.0, -1.0, 6e-8, -6e-8, 65504.0, 2.0**-14, -0.0078125], np.float16)


def random_blocks(rng, qtype, n, block_bytes):
    blocks = rng.integers(0, 256, (n, block_bytes), dtype=np.uint8)
    for field, offset in enumerate(HALF_FIELDS[qtype]):
        d = (rng.standard_normal(n) * 0.05).astype(np.float16)
        # The specials start at another block in each field, so that zero d meets non-zero dmin.
        d[field * 3 : field * 3 + len(SPECIAL)] = SPECIAL
        blocks[:, offset : offset + 2] = d.view(np.uint8).reshape(n, 2)
    return blocks


def main():
    out = pathlib.Path(__file__).parent / "dequant"
    out.mkdir(exist_ok=True)
    rng = np.random.default_rng(20240917)
    for qtype in [Q.F32, Q.F16, Q.BF16, *HALF_FIELDS]:
        elements, block_bytes = GGML_QUANT_SIZES[qtype]
        if elements == 1:
            values = rng.standard_normal(504) * np.exp(rng.uniform(-16, 10, 504))
            values = np.concatenate([values, SPECIAL]).astype(np.float32)
            if qtype == Q.F16:
                raw = values.astype(np.float16).view(np.uint8)
            elif qtype == Q.BF16:
                raw = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
            else:
                raw = values.view(np.uint8)
            blocks = raw.reshape(len(values), block_bytes)
        else:
            blocks = random_blocks(rng, qtype, 64 if elements == 32 else 32, block_bytes)
        expected = dequantize(blocks.reshape(1, -1), qtype).astype(np.float32).reshape(-1)
        assert expected.size == len(blocks) * elements and np.isfinite(expected).all()
        with open(out / f"{qtype.name}.bin", "wb") as f:
            f.write(struct.pack("<3I", len(blocks), block_bytes, elements))
            f.write(blocks.tobytes())
            f.write(expected.astype("<f4").tobytes())


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Judges a repro bundle without the engine that wrote it: verify.py [FOLDER...]

Recomputes, in double precision and from the inputs alone, what the op should have made of them, and from the numeric
contracts how far each element may be off; then judges the output that was kept. Without arguments: the folder that this
script lies in. Needs Python 3 and NumPy.

Exit code 0: all of it agrees with what the engine says; 1: something does not; 3: a bundle is damaged.
The formulas are those of core/contract.h. Derivations: Higham, Accuracy and Stability of Numerical Algorithms, 3.1, 4.2.
"""

import json
import sys
from pathlib import Path

import numpy as np

UNIT = 2.0**-24  # unit roundoff of FP32
UNIT64 = 2.0**-53
LAMBDA = 7.9  # of one sum of independent errors
SUBNORMAL_STEP = 2.0**-149
MAX_BYTES = 16 << 20  # of a file


class Damaged(Exception):
    pass


# ---- What each op computes: (inputs, fields) -> the outputs, in order. FP64, but for copies.


def embed(a, _):
    return [a["table"][a["ids"]]]


def rms_norm(a, fields):
    x = a["x"]
    scale = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + fields["eps"])
    return [x * scale * a["weight"]]


def gemm(a, _):
    return [a["x"] @ a["weight"].T]


def add_bias(a, _):
    return [a["x"] + a["bias"]]


def rope(a, _):
    angle = (a["pos"][:, None] * a["inv_freq"])[:, None, :]
    low, high = np.split(a["x"], 2, axis=2)
    cos, sin = np.cos(angle), np.sin(angle)
    return [np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=2)]


def silu_mul(a, _):
    return [a["gate"] / (1 + np.exp(-a["gate"])) * a["up"]]


def add(a, _):
    return [a["x"] + a["y"]]


def take_rows(a, _):
    return [a["x"][a["rows"]]]


def kv_write(a, _):
    """Rounded to the cache's type; what is not written stays, bit for bit."""
    k_cache, v_cache = a["k_cache"].copy(), a["v_cache"].copy()
    page_tokens = k_cache.shape[2]
    page = a["pages"][a["seq"], a["pos"] // page_tokens]
    slot = a["pos"] % page_tokens
    k = (a["k"] - a["k_center"]).astype(np.float32)  # as in FP32: 53 digits are more than twice 24 (Figueroa 1995)
    k_cache[page, :, slot] = k.astype(k_cache.dtype)
    v_cache[page, :, slot] = a["v"].astype(np.float32).astype(v_cache.dtype)
    return [k_cache, v_cache]


def attention_rows(a, fields):
    """Of each token and query head: its indices, query, keys, values and exact scores."""
    n_tokens, n_heads, head_dim = a["q"].shape
    n_kv_heads = a["k_cache"].shape[1]
    for token in range(n_tokens):
        pages = a["pages"][a["seq"][token]]
        # (page, kv_head, slot, d) -> (kv_head, position, d)
        keys, values = (np.moveaxis(a[cache][pages], 1, 0).reshape(n_kv_heads, -1, head_dim).astype(np.float64)
                        for cache in ("k_cache", "v_cache"))
        n = a["pos"][token] + 1
        for head in range(n_heads):
            kv_head = head // (n_heads // n_kv_heads)
            q, k, v = a["q"][token, head], keys[kv_head, :n], values[kv_head, :n]
            yield (token, head), q, k, v, fields["scale"] * (k @ q)


def attention(a, fields):
    out = np.empty(a["q"].shape)
    lse = np.empty(a["q"].shape[:2])
    for row, _, _, v, score in attention_rows(a, fields):
        weight = np.exp(score - score.max())
        lse[row] = score.max() + np.log(weight.sum())
        out[row] = weight @ v / weight.sum()
    return [out, lse]


def uniform_draw(seed_low, seed_high, stream, pos):
    """Philox4x32-10 (Salmon et al. 2011) of (pos, stream, 0, 0), its first two words as a number in [0, 1)."""
    mask = 0xFFFFFFFF
    counter, key = [pos & mask, stream, 0, 0], [seed_low, seed_high]
    for _ in range(10):
        one, other = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [other >> 32 ^ counter[1] ^ key[0], other & mask, one >> 32 ^ counter[3] ^ key[1], one & mask]
        key = [key[0] + 0x9E3779B9 & mask, key[1] + 0xBB67AE85 & mask]
    return ((counter[1] << 32 | counter[0]) >> 11) * 2.0**-53


def chosen(logits, seen, words, pos):
    """The id that core/sampler.h defines."""
    temp, _, top_p, min_p, penalty = words[:5].astype(np.int32).view(np.float32)
    if penalty != 1:
        logits = np.where(seen != 0, np.where(logits > 0, logits / penalty, logits * penalty), logits)
    if temp == 0:
        return int(np.where(np.isnan(logits), -np.inf, logits).argmax())
    ids = np.flatnonzero(~np.isnan(logits))
    ids = ids[np.lexsort((ids, -logits[ids]))]
    ids = ids[:words[1]] if words[1] > 0 else ids
    if len(ids) == 0:
        return 0
    ranked = logits[ids].astype(np.float64)
    weights = np.exp(np.where(ranked == ranked[0], 0, ranked - ranked[0]) / float(temp))
    sums = np.cumsum(weights[weights >= min_p])
    n = min(np.searchsorted(sums, float(top_p) * sums[-1]) + 1, len(sums))
    target = uniform_draw(*(int(w) & 0xFFFFFFFF for w in words[5:8]), int(pos)) * sums[n - 1]
    return int(ids[min(np.searchsorted(sums[:n - 1], target, side="right"), n - 1)])


def sample(a, _):
    seen = a["seen"].astype(np.int8)
    logits = a["logits"].astype(np.float32)
    out = np.empty(len(logits), np.int32)
    for row, seq in enumerate(a["seq"]):
        out[row] = chosen(logits[row], seen[seq], a["params"][seq], a["pos"][row])
        seen[seq, out[row]] = 1
    return [out, logits[np.arange(len(out)), out], seen]


def rounded_to_int8(x, fine_from):
    """Activations as integers (core/int8.h), in FP32: blocks of 32 columns; a step of nine bits, or a 128th of it where
    a block is large beside the others of its row."""
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    largest = np.abs(blocks).max(axis=2)
    step = (largest / np.float32(127)).view(np.uint32)
    step = ((step + 0x7FFF) & ~np.uint32(0x7FFF)).view(np.float32)
    step = np.where(largest < 2.0**-100, np.float32(0), np.where(largest < 2.0**110, step, np.float32(np.nan)))
    sums = np.cumsum(largest, axis=1, dtype=np.float64)[:, -1:]
    unit = np.where(largest.astype(np.float64) * largest.shape[1] > fine_from * sums, step / np.float32(128), step)
    per_value = np.where(unit == 0, np.float32(0), 1 / unit)
    return (np.rint(blocks * per_value[:, :, None]) * unit[:, :, None]).reshape(x.shape).astype(np.float64)


# ---- How far each element may be off: (inputs, fields, contract, outputs, unit) -> the bounds of the outputs.


def growth(depth, contract, unit):
    linear = depth * unit / (1 - depth * unit)
    return linear if contract["truncates"] else min(linear, 8.8 * np.sqrt(depth) * unit)


def exact_bound(_a, _fields, _contract, outputs, _unit):
    return [np.zeros(y.shape) for y in outputs]


def one_rounding(_a, _fields, _contract, outputs, unit):
    return [np.abs(outputs[0]) * unit]


def rms_norm_bound(_a, _fields, contract, outputs, unit):
    return [np.abs(outputs[0]) * (growth(contract["sum_depth"], contract, unit) / 2 + 7 * unit)]


def silu_mul_bound(a, _fields, _contract, outputs, unit):
    y = np.abs(outputs[0])
    bound = y * (9 + np.abs(a["gate"])) * unit + SUBNORMAL_STEP * (1 + np.abs(a["up"]))
    return [bound + np.where(a["gate"] < -87, y, 0)]


def rope_bound(a, _fields, _contract, outputs, unit):
    low, high = np.split(np.abs(a["x"]), 2, axis=2)
    size = np.concatenate([low + high, low + high], axis=2)
    return [(5 * size + np.abs(outputs[0])) * unit]


def largest_partial_sum(x, weight, block):
    """M of a truncating sum: partial sums consist of whole blocks of products, in whatever order."""
    n = -x.shape[1] % block
    x, weight = (np.pad(m, ((0, 0), (0, n))).reshape(len(m), -1, block) for m in (x, weight))
    sums = np.einsum("tbc,rbc->trb", x, weight)
    largest = np.array([[np.abs(t * w).max() for w in weight] for t in x])
    return np.maximum(largest, np.maximum(np.where(sums > 0, sums, 0).sum(axis=2),
                                          -np.where(sums > 0, 0, sums).sum(axis=2)))


def gemm_bound(a, _fields, contract, outputs, unit):
    g = growth(contract["sum_depth"], contract, unit)
    one, other = contract["input_unit"], contract["weight_unit"]
    weight = np.abs(a["weight"])
    size = np.abs(a["x"]) @ weight.T
    rounded = (one + other + one * other) * size + contract["input_step"] * weight.sum(axis=1)
    by_blocks = contract["truncates"] and contract["sum_block"] > 0
    terms = size + 2 * np.abs(a["x"]) @ np.abs(a["weight_min"]).T if contract["separate_minima"] else size
    partial = largest_partial_sum(a["x"], a["weight"], contract["sum_block"]) if by_blocks else terms
    summed = g * (partial + rounded)
    return [summed + rounded + unit * (2 * np.abs(outputs[0]) + summed)]


def attention_bound(a, fields, contract, outputs, unit):
    out, lse = np.abs(outputs[0]), np.abs(outputs[1])
    bounds = [np.empty(out.shape), np.empty(lse.shape)]
    g = growth(contract["sum_depth"], contract, unit)
    g_values = growth(contract["value_sum_depth"], contract, unit)
    for row, q, k, v, score in attention_rows(a, fields):
        size = np.abs(k) @ np.abs(q)
        delta = fields["scale"] * (g + contract["input_unit"]) * size + 2 * unit * np.abs(score)
        below = score - score.max()
        delta_max = delta[below > -1].max()
        p = np.exp(below) / np.exp(below).sum()
        epsilon = np.expm1(delta + delta_max + 3 * np.abs(below) * unit) + 6 * unit
        epsilon = np.where(p > 0, epsilon, 0)
        weight_error = p @ epsilon
        n = len(score)
        size = p @ np.abs(v)
        step = contract["probability_step"] * np.abs(v[p > 0]).sum(axis=0) / np.exp(below).sum()
        rounded = contract["probability_unit"] * np.minimum(size, LAMBDA * np.sqrt((p * p) @ (v * v))) + step
        bounds[1][row] = weight_error + delta_max + n * unit + 4 * unit * (1 + lse[row])
        bounds[0][row] = ((p * (epsilon + unit)) @ np.abs(v) + rounded + out[row] * (weight_error + n * unit) +
                          g_values * (size + rounded) + 2 * unit * out[row])
    return bounds


OPS = {
    "Embed": (embed, exact_bound),
    "RmsNorm": (rms_norm, rms_norm_bound),
    "Gemm": (gemm, gemm_bound),
    "AddBias": (add_bias, one_rounding),
    "Rope": (rope, rope_bound),
    "KvWrite": (kv_write, exact_bound),
    "Attention": (attention, attention_bound),
    "SiluMul": (silu_mul, silu_mul_bound),
    "Add": (add, one_rounding),
    "TakeRows": (take_rows, exact_bound),
    "Sample": (sample, exact_bound),
}


def noise(bounds, a, fields, outputs):
    """How far two evaluations in double precision may be apart: twice the bound of one, whatever its order."""
    depth = 1 + max([a["x"].shape[-1] if "x" in a else 0, int(a["pos"].max()) if "pos" in a else 0,
                     a["q"].shape[-1] if "q" in a else 0])
    plain = dict(sum_depth=depth, value_sum_depth=depth, truncates=True, sum_block=0, separate_minima=False, input_unit=0,
                 weight_unit=0, probability_unit=0, input_step=0, probability_step=0)
    return [2 * b for b in bounds(a, fields, plain, outputs, UNIT64)]


# ---- The bundle.


def read_array(folder, name):
    path = folder / f"{name}.npy"
    if not path.is_file():
        raise Damaged(f"{path.name} is missing")
    if path.stat().st_size > MAX_BYTES:
        raise Damaged(f"{path.name} is too large")
    return np.load(path, allow_pickle=False)


def read_input(folder, name, about):
    """As numbers: blocks of a quantised type as the engine has decoded them; caches as they are stored."""
    array = read_array(folder, name)
    if array.dtype == np.uint8:
        array = read_array(folder, f"{name}_f32")
    if list(array.shape) != about["shape"]:
        raise Damaged(f"{name}.npy has the shape {array.shape}, expected {tuple(about['shape'])}")
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    return array if name in ("k_cache", "v_cache") else array.astype(np.float64)


def same_bits(x, y):
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize]
    return x.view(kind) == y.view(kind)


def ratios(got, expected, tolerance):
    """|error| / tolerance; infinite where one is not finite and the other differs."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    error = np.abs(got - expected)
    finite = np.isfinite(got) & np.isfinite(expected)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    ratio = np.where(tolerance > 0, error / tolerance, np.inf)
    return np.where(same, 0, np.where(finite, ratio, np.inf))


def agreeing(failed, borderline, stored, n_stored):
    """Whether the elements that fail are those that the engine lists: the first ones of n_stored. Elements at the very
    bound may fall on either side of it."""
    own = np.flatnonzero(failed | borderline)
    sure = np.flatnonzero(failed & ~borderline)
    if len(stored) < n_stored:  # the list is cut
        own, sure = own[own <= stored[-1]], sure[sure <= stored[-1]]
    elif not len(sure) <= n_stored <= len(own):
        return False
    return bool(np.isin(sure, stored).all() and np.isin(stored, own).all())


def check_output(folder, name, about, exact, allowed, tolerance):
    """The line about one output, and whether the engine is right about it."""
    got, expected = read_array(folder, f"got_{name}"), read_array(folder, f"expected_{name}")
    stored = read_array(folder, f"failed_{name}")
    if got.shape != exact.shape or expected.shape != exact.shape or got.dtype != expected.dtype:
        raise Damaged(f"got_{name}.npy or expected_{name}.npy has not the shape {exact.shape}")
    complaint = ""
    if tolerance is None:  # bit for bit
        right = same_bits(expected, exact) | (np.isnan(expected) & np.isnan(exact))
        failed = (~same_bits(got, expected)).ravel()
        borderline = np.zeros(failed.shape, bool)
        ratio = np.where(failed, np.inf, 0)
    else:
        right = (expected == exact.astype(np.float32)) | (np.isnan(expected) & np.isnan(exact))
        right |= np.abs(expected - exact) <= np.abs(exact) * UNIT * (1 + 2 * UNIT) + SUBNORMAL_STEP / 2 + allowed
        theirs = read_array(folder, f"tolerance_{name}").reshape(exact.shape)
        alike = np.isclose(theirs, tolerance, rtol=1e-6, atol=0, equal_nan=True)
        if not alike.all():
            i = np.flatnonzero(~alike)[0]
            complaint = f"; the tolerance of element {i} is {tolerance.flat[i]:.9g}, " \
                        f"the engine says {theirs.flat[i]:.9g}"
        ratio = ratios(got, expected, tolerance).ravel()
        failed = ratio > 1
        borderline = np.abs(ratio - 1) < 1e-6
    if not right.all():
        i = np.flatnonzero(~right)[0]
        complaint = f"; element {i} should be {exact.flat[i]:.9g}, the engine says {expected.flat[i]:.9g}"
    if not complaint and not agreeing(failed, borderline, stored, about["failed"]):
        complaint = f"; the engine says {about['failed']}, or other ones"
    worst = f", the worst by {ratio.max():.4g} of the tolerance" if failed.any() else ""
    line = f"{name}: {failed.sum()} of {failed.size} elements are wrong{worst}"
    return (line + complaint if complaint else f"{line}; the engine agrees"), not complaint


def verify(folder):
    """Prints a line for each output. True if the engine is right about all of them."""
    with open(folder / "contract.json", encoding="utf-8") as file:
        about = json.load(file)
    op = about["op"]
    if op not in OPS:
        raise Damaged(f"the op '{op}' is not known")
    value, bounds = OPS[op]
    fields = about["fields"]
    a = {name: read_input(folder, name, how) for name, how in about["inputs"].items()}
    if about["contracts"] and about["contracts"][0]["int8_fine_from"] > 0:
        a["x"] = rounded_to_int8(a["x"], about["contracts"][0]["int8_fine_from"])
    if any(contract["separate_minima"] for contract in about["contracts"]):
        a["weight_min"] = read_array(folder, "weight_min").astype(np.float64)
    exact = value(a, fields)
    bit_exact = op in ("KvWrite", "Sample")
    expected = [read_array(folder, f"expected_{name}").astype(np.float64) for name in about["outputs"]]
    allowed = [None] * len(exact) if bit_exact else noise(bounds, a, fields, exact)
    each = [bounds(a, fields, contract, expected, UNIT) for contract in about["contracts"]]
    agrees = True
    for i, (name, output) in enumerate(about["outputs"].items()):
        tolerance = None if bit_exact else sum(of_one[i] for of_one in each)
        line, right = check_output(folder, name, output, exact[i], allowed[i], tolerance)
        print(f"{folder}: {about['tap']} {line}")
        agrees &= right
    return agrees


def main():
    folders = [Path(a) for a in sys.argv[1:]] or [Path(__file__).resolve().parent]
    agrees = damaged = 0
    for folder in folders:
        try:
            with np.errstate(all="ignore"):
                agrees += verify(folder)
        except (Damaged, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError,
                MemoryError, OverflowError, RecursionError, SyntaxError) as error:
            print(f"{folder}: the bundle is damaged: {type(error).__name__}: {error}")
            damaged += 1
    return 3 if damaged else int(agrees < len(folders))


if __name__ == "__main__":
    sys.exit(main())

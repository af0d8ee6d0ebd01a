import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, few

from harness import ops
from reference import attention
from reference.kinds import apply, pull_back

masking: dict[str, Any] = {
    "mask": "none",
    "causal": False,
    "causal_offset": 0,
    "masked_value": -math.inf,
    "masking": "fill",
    "empty_row": "formula",
}
PLAIN = ops.Attention(score="dot", weighted=False, scale=0.5, **masking)
HEADS = ops.MultiHeadAttention(heads=4, key_heads=4, bias=True, out_bias=True, scale=0.7, **masking)

options: dict[str, Any] = {
    "seed": st.integers(0, 10**6),
    "mask": st.sampled_from(["none", "attend", "ignore", "additive"]),
    "causal": st.booleans(),
    "masked_value": st.sampled_from([-math.inf, -3.0]),
    "masking": st.sampled_from(["fill", "add"]),
    "empty_row": st.sampled_from(["formula", "zero"]),
}


def mask_of(op: Any, rng: np.random.Generator, *shape: int) -> list[Array]:
    if op.mask == "none":
        return []
    if op.mask == "additive":
        return [rng.normal(size=shape)]
    forbidden = rng.random(shape) < 0.4
    forbidden[..., 0] = False
    return [forbidden == (op.mask == "ignore")]


@few
@given(
    score=st.sampled_from(["dot", "additive"]),
    weighted=st.booleans(),
    lead=st.sampled_from([(2,), (2, 3), ()]),
    **options,
)
def test_attention(seed: int, lead: tuple[int, ...], weighted: bool, **changes: Any) -> None:
    weighted = weighted and changes["score"] == "additive"
    op = replace(PLAIN, weighted=weighted, **changes)
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(*lead, *shape)) for shape in ((3, 4), (5, 4), (5, 2)))
    check_op(op, [q, k, v, *mask_of(op, rng, 3, 5)], [rng.normal(size=4)] if weighted else [])


@few
@given(
    key_heads=st.sampled_from([4, 2, 1]),
    bias=st.booleans(),
    out_bias=st.booleans(),
    wide=st.sampled_from([(2, 4, 3, 5), (2, 1, 1, 5), (3, 5)]),
    **options,
)
def test_heads(seed: int, key_heads: int, bias: bool, out_bias: bool, wide: tuple[int, ...], **changes: Any) -> None:
    op = replace(HEADS, key_heads=key_heads, bias=bias, out_bias=out_bias, **changes)
    rng = np.random.default_rng(seed)
    rows = [4 * 2, key_heads * 2, key_heads * 3]
    kernels = [rng.normal(size=(n, features)) * 0.4 for n, features in zip(rows, (5, 6, 4), strict=True)]
    kernels.append(rng.normal(size=(7, 4 * 3)) * 0.4)
    biases = [rng.normal(size=n) for n in (*rows, 7)]
    q, k, v = (rng.normal(size=(2, *shape)) for shape in ((3, 5), (5, 6), (5, 4)))
    given = [*kernels, *(biases[:3] if bias else []), *(biases[3:] if out_bias else [])]
    check_op(op, [q, k, v, *mask_of(op, rng, *wide)], given)


# --- what the fields say ----------------------------------------------------------------------------------------


def small() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, n, 2)) for n in (2, 3, 3))
    return q, k, v


def test_by_hand() -> None:
    q, k, v = small()
    y = apply(PLAIN, [q, k, v], [])
    e = np.exp(0.5 * q[0, 1] @ k[0].T)
    np.testing.assert_allclose(y[0, 1], (e / e.sum()) @ v[0], rtol=1e-14)


def test_true_may_be_attended_to_or_ignored() -> None:
    q, k, v = small()
    mask = np.array([[True, False, True]] * 2)
    y = apply(replace(PLAIN, mask="attend"), [q, k, v, mask], [])
    np.testing.assert_allclose(y, apply(PLAIN, [q, k[:, ::2], v[:, ::2]], []), rtol=1e-14)
    np.testing.assert_allclose(y, apply(replace(PLAIN, mask="ignore"), [q, k, v, ~mask], []), rtol=1e-14)
    np.testing.assert_allclose(
        y, apply(replace(PLAIN, mask="additive"), [q, k, v, np.where(mask, 0, -np.inf)], []), rtol=1e-14
    )


def test_causal_offset() -> None:
    q, k, v = small()
    for offset in (0, 1):
        y = apply(replace(PLAIN, causal=True, causal_offset=offset), [q, k, v], [])
        seen = slice(0, 1 + offset)
        np.testing.assert_allclose(y[:, :1], apply(PLAIN, [q[:, :1], k[:, seen], v[:, seen]], []), rtol=1e-14)


def test_a_row_without_a_key() -> None:
    q, k, v = small()
    mask = np.array([[False, False, False], [True, True, False]])
    op = replace(PLAIN, mask="attend")
    y = apply(op, [q, k, v, mask], [])
    assert np.isnan(y[0, 0]).all()
    assert np.isfinite(y[0, 1]).all()
    zero = replace(op, empty_row="zero")
    assert (apply(zero, [q, k, v, mask], [])[0, 0] == 0).all()
    inputs, _ = pull_back(zero, np.ones_like(q), apply(zero, [q, k, v, mask], []), [q, k, v, mask], [])
    assert all(np.isfinite(g).all() for g in inputs[:3])  # type: ignore[arg-type]
    # a large number in place of -inf: the mean of all keys, whatever their scores, if it fills
    flat = apply(replace(op, masked_value=-1e9), [q, k, v, mask], [])
    np.testing.assert_allclose(flat[0, 0], v[0].mean(axis=0), rtol=1e-14)
    # and the scores again if it is added
    added = apply(replace(op, masked_value=-1e3, masking="add"), [q, k, v, mask], [])
    np.testing.assert_allclose(added[0, 0], apply(PLAIN, [q, k, v], [])[0, 0], rtol=1e-12)


def test_grouped_queries_share_keys() -> None:
    rng = np.random.default_rng(0)
    op = replace(HEADS, key_heads=2, bias=False, out_bias=False)
    q, k, v = (rng.normal(size=(2, n, 6)) for n in (3, 4, 4))
    W = [rng.normal(size=(n, 6)) for n in (8, 4, 4)] + [rng.normal(size=(5, 8))]
    copied = [W[0], *(np.repeat(w.reshape(2, 2, 6), 2, axis=0).reshape(8, 6) for w in W[1:3]), W[3]]
    np.testing.assert_allclose(apply(op, [q, k, v], W), apply(replace(op, key_heads=4), [q, k, v], copied), rtol=1e-13)


# --- planted ----------------------------------------------------------------------------------------------------

real = attention._back_to_scores


def without_inner_product(op: Any, dy: Array, P: Array, v: Array, mask: Any) -> Any:
    return P * (dy @ v.swapaxes(-1, -2)), *real(op, dy, P, v, mask)[1:]


def values_transposed(op: Any, dy: Array, P: Array, v: Array, mask: Any) -> Any:
    dS, _, dmask = real(op, dy, P, v, mask)
    return dS, P @ dy, dmask


@pytest.mark.parametrize("wrong", [without_inner_product, values_transposed])
@pytest.mark.parametrize("op", [PLAIN, replace(HEADS, heads=2, key_heads=2)])
def test_planted_mistakes_are_found(monkeypatch: pytest.MonkeyPatch, wrong: Any, op: Any) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(attention, "_back_to_scores", wrong)
    inputs = [rng.normal(size=(2, 3, 4)) for _ in range(3)]
    kernels = [rng.normal(size=(4, 4)) for _ in range(4)] + [rng.normal(size=4) for _ in range(4)]
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, inputs, kernels if op is not PLAIN else [])

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, few, planted

from harness import ops
from reference.kinds import apply, pull_back

seeds = st.integers(0, 10**6)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


@few
@given(seed=seeds, bias=st.booleans(), lead=st.sampled_from([(5,), (2, 3), (2, 1, 3), ()]))
def test_affine(seed: int, bias: bool, lead: tuple[int, ...]) -> None:
    op = ops.Affine(bias=bias, kernel_axes=(0, 1))
    check_op(op, [normal(seed, *lead, 4)], [normal(seed + 1, 3, 4), normal(seed + 2, 3)][: 1 + bias])


def test_affine_with_its_kernel_transposed() -> None:
    op = ops.Affine(bias=False, kernel_axes=(1, 0))
    x, W = normal(0, 2, 3), normal(1, 3, 4)
    check_op(op, [x], [W])
    np.testing.assert_allclose(apply(op, [x], [W]), x @ W, rtol=1e-14)


EQUATIONS = {
    "bij,bjk->bik": ((2, 3, 4), (2, 4, 2)),
    "abc,cd->abd": ((2, 3, 4), (4, 2)),
    "...a,ab->...b": ((2, 3, 4), (4, 2)),
    "...ij,...kj->...ik": ((2, 1, 3, 4), (2, 1, 5, 4)),
    "ab,ab->a": ((3, 4), (3, 4)),
    "abc->ca": ((2, 3, 4),),
    "ab,cd->b": ((2, 3), (2, 2)),
    "a,b,c->abc": ((2,), (3,), (2,)),
    "bqhd,bkhd->bhqk": ((2, 3, 2, 4), (2, 5, 2, 4)),
    "ij,jk,kl->il": ((2, 3), (3, 4), (4, 2)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    operands = [normal(k, *shape) for k, shape in enumerate(EQUATIONS[equation])]
    check_op(ops.Einsum(equation=equation), operands[:1], operands[1:])
    np.testing.assert_allclose(
        apply(ops.Einsum(equation=equation), operands, []), np.einsum(equation, *operands), rtol=1e-12
    )


@few
@given(seed=seeds, shape=st.sampled_from([(4,), (2, 5), (1, 2, 3)]))
def test_embedding(seed: int, shape: tuple[int, ...]) -> None:
    indices = np.random.default_rng(seed).integers(0, 5, shape)
    check_op(ops.Embedding(padding_index=None), [indices], [normal(seed, 5, 3)])


def test_embedding_adds_what_repeats_and_leaves_the_padding_row() -> None:
    indices, W, dy = np.array([[1, 1, 0], [2, 1, 0]]), np.zeros((3, 1)), np.arange(1.0, 7.0).reshape(2, 3, 1)
    _, (dW,) = pull_back(ops.Embedding(padding_index=None), dy, dy, [indices], [W])
    np.testing.assert_array_equal(dW, [[9], [8], [4]])  # type: ignore[arg-type]
    _, (dW,) = pull_back(ops.Embedding(padding_index=0), dy, dy, [indices], [W])
    np.testing.assert_array_equal(dW, [[0], [8], [4]])  # type: ignore[arg-type]


def test_an_embedding_that_overwrites_what_repeats_is_found() -> None:
    indices = np.array([1, 1, 0])

    def overwrites(op: ops.Embedding, dy: Array, *_: object) -> tuple[tuple[None], tuple[Array]]:
        dW = np.zeros((3, 2))
        dW[indices] = dy
        return (None,), (dW,)

    with pytest.raises(AssertionError, match="analytic"):
        check_op(ops.Embedding(padding_index=None), [indices], [normal(0, 3, 2)], back=overwrites)


def test_a_transposed_gradient_is_found() -> None:
    op = ops.Affine(bias=False, kernel_axes=(0, 1))
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [normal(0, 5, 3)], [normal(1, 3, 3)], back=planted(1, np.transpose))

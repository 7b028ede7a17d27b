"""Vectors of 16 numbers for numba kernels, held in registers.

numba leaves it to the compiler to find vectors in a loop, and the compiler first has to prove that
no two arrays overlap, at every loop anew.  With vectors as values of their own there is nothing to
prove: a kernel loads, computes and stores, and what lies in between stays in registers.  LLVM cuts
them to what the processor has: one register of AVX-512, two of AVX2, four of NEON or SSE.

Items are float32 or float64.  ``+``, ``-`` and ``*`` work lane by lane, and a product is fused with
the sum after it where the processor can.  An index is a tuple of integers and is not checked.
"""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_LN_2 = math.log(2.0)


class Vector(types.Type):
    """numba's type of a vector."""

    def __init__(self, item: types.Float) -> None:
        self.item = item
        super().__init__(name=f"Vector({item})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        item = manager[vector.item].get_value_type()
        super().__init__(manager, vector, ir.VectorType(item, LANES))


def _constant(like: ir.Type, value: float) -> ir.Constant:
    return like([value] * like.count)


def _spread(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    vector = ir.VectorType(scalar.type, LANES)
    empty = vector(ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, empty, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, int]:
    """Pointer to the first item, as one to a vector, and how the item is aligned."""
    array = signature.args[0]
    view = context.make_array(array)(context, builder, arguments[0])
    indices = cgutils.unpack_tuple(builder, arguments[1])
    item = cgutils.get_item_pointer(context, builder, array, view, indices)
    vector = ir.VectorType(context.get_value_type(array.dtype), LANES)
    return builder.bitcast(item, vector.as_pointer()), array.dtype.bitwidth // 8


def _first(builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """Mask of the first `count` lanes."""
    lanes = ir.VectorType(count.type, LANES)(list(range(LANES)))
    return builder.icmp_signed("<", lanes, _spread(builder, count))


def _call_masked(
    what: str, builder: ir.IRBuilder, item: types.Float, result: ir.Type, arguments: list[ir.Value]
) -> ir.Value:
    name = f"llvm.masked.{what}.v{LANES}f{item.bitwidth}.p0"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, arguments)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Load 16 items from `index` on; ``load(array, index)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, align = _pointer(context, builder, signature, arguments)
        return builder.load(pointer, align=align)

    return Vector(array.dtype)(array, index), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Store 16 items from `index` on; ``store(array, index, vector)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, align = _pointer(context, builder, signature, arguments)
        builder.store(arguments[2], pointer, align=align)
        return context.get_dummy_value()

    return types.none(array, index, vector), generate


@intrinsic
def load_first(typing: Any, array: Any, index: Any, count: Any) -> Any:
    """Load `count` items from `index` on, and zeros after them, if they are fewer than 16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, align = _pointer(context, builder, signature, arguments)
        vector = pointer.type.pointee
        of = [pointer, ir.IntType(32)(align), _first(builder, arguments[2]), _constant(vector, 0.0)]
        return _call_masked("load", builder, array.dtype, vector, of)

    return Vector(array.dtype)(array, index, types.intp), generate


@intrinsic
def store_first(typing: Any, array: Any, index: Any, vector: Any, count: Any) -> Any:
    """Store the first `count` items of a vector from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, align = _pointer(context, builder, signature, arguments)
        of = [arguments[2], pointer, ir.IntType(32)(align), _first(builder, arguments[3])]
        _call_masked("store", builder, array.dtype, ir.VoidType(), of)
        return context.get_dummy_value()

    return types.none(array, index, vector, types.intp), generate


@intrinsic
def fill(typing: Any, scalar: Any) -> Any:
    """Vector of one number; ``fill(scalar)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0])

    return Vector(scalar)(scalar), generate


@intrinsic
def repeat(typing: Any, array: Any, index: Any) -> Any:
    """Vector of one item of an array; ``repeat(array, index)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, align = _pointer(context, builder, signature, arguments)
        item = builder.bitcast(pointer, pointer.type.pointee.element.as_pointer())
        return _spread(builder, builder.load(item, align=align))

    return Vector(array.dtype)(array, index), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum of the items; ``total(vector)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        while (half := value.type.count // 2) >= 1:
            lanes = ir.VectorType(ir.IntType(32), half)
            low, high = (
                builder.shuffle_vector(value, value, lanes(list(range(start, start + half))))
                for start in (0, half)
            )
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    return vector.item(vector), generate


def _operator(symbol: Any, instruction: str) -> None:
    @intrinsic
    def apply(typing: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=("contract",))

        return left(left, right), generate

    @overload(symbol)
    def choose(left: Any, right: Any) -> Any:
        if not isinstance(left, Vector) or left != right:
            return None

        def lane_by_lane(left: Any, right: Any) -> Any:
            return apply(left, right)

        return lane_by_lane


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")


def _polynomial(builder: ir.IRBuilder, x: ir.Value, coefficients: list[float]) -> ir.Value:
    """Coefficients run from the highest power to the constant."""

    def next_term(so_far: ir.Value, coefficient: float) -> ir.Value:
        product = builder.fmul(so_far, x, flags=("contract",))
        return builder.fadd(product, _constant(x.type, coefficient), flags=("contract",))

    return reduce(next_term, coefficients[1:], _constant(x.type, coefficients[0]))


def _exp2(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    double = isinstance(value.type.element, ir.DoubleType)
    integers = ir.VectorType(ir.IntType(64 if double else 32), LANES)
    mantissa_bits, least = (52, -1022.0) if double else (23, -126.0)
    # 2^value = 2^whole * 2^part with part in [-0.5, 0.5].  The sum with 1.5 * 2^mantissa_bits has
    # no room for a fraction: it rounds, and its last bits are the whole number.
    lowest = _constant(value.type, least)
    value = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
    rounding = _constant(value.type, 1.5 * 2**mantissa_bits)
    rounded = builder.fadd(value, rounding)
    part = builder.fsub(value, builder.fsub(rounded, rounding))
    if double:  # Taylor series
        coefficients = [_LN_2**n / math.factorial(n) for n in range(13, -1, -1)]
    else:  # least squares of the relative error, exact at 0
        coefficients = [1.3218673e-3, 9.6716979e-3, 5.5508930e-2, 0.24022238, 0.69314686, 1.0]
    power = builder.bitcast(_polynomial(builder, part, coefficients), integers)
    whole = builder.shl(builder.bitcast(rounded, integers), _constant(integers, mantissa_bits))
    return builder.bitcast(builder.add(power, whole), value.type)  # added to the exponent


@intrinsic
def exp2(typing: Any, vector: Any) -> Any:
    """2 ** vector for items <= 0; relative error under 3e-7 (float32)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _exp2(builder, arguments[0])

    return vector(vector), generate


@intrinsic
def softplus(typing: Any, vector: Any) -> Any:
    """log(1 + exp(vector))."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # max(v, 0) + log1p(e) with e = exp(-|v|) in (0, 1]; log1p(e) = 2 atanh(r) with
        # r = e / (2 + e) in (0, 1/3]: an odd series that converges fast.
        value = arguments[0]
        zero = _constant(value.type, 0.0)
        above = builder.fcmp_ordered(">", value, zero)
        least = builder.select(above, builder.fsub(zero, value), value)
        e = _exp2(builder, builder.fmul(least, _constant(value.type, 1 / _LN_2)))
        r = builder.fdiv(e, builder.fadd(e, _constant(value.type, 2.0)))
        terms = 17 if isinstance(value.type.element, ir.DoubleType) else 7
        series = _polynomial(
            builder, builder.fmul(r, r), [2 / (2 * n + 1) for n in range(terms - 1, -1, -1)]
        )
        # For NaN `above` is false, and e is NaN.
        return builder.fadd(
            builder.select(above, value, zero), builder.fmul(r, series, flags=("contract",))
        )

    return vector(vector), generate

"""Vector registers as a Numba type, for the one loop that the compiler does not optimise well by itself.

LLVM vectorises a plain loop over an array, but it does not keep a tile of the output of a matrix product in registers
over the loop that adds up its terms. Here a vector is an ordinary value: assigned to a variable, it stays in a
register. A matrix product needs only six functions.

``load(array, index)``
    array[index : index + lanes], of a C-contiguous one-dimensional array. Indices are not checked.
``store(array, index, vector)``
    array[index : index + lanes] = vector.
``zeros(array)``
    A vector of zeros of the array's float type.
``multiply_add(total, array, index, vector)``
    total + array[index] vector: a scalar, broadcast to all lanes, times a vector; fused where the machine can.
``transpose(out, at, step, array, index, stride)``
    out[at + step l + r] = array[index + stride r + l], for r, l < lanes: a square block, transposed. Its rows are
    written in order of l, so that with step < lanes each overwrites the end of the one before.
``some_nonzero(array, index, count)``
    Whether any of array[index : index + count] is nonzero; ``count`` is a compile-time constant. Reads whole vectors.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

BITS = 512 if binding.get_host_cpu_features().get("avx512f") else 256  # narrower machines use two registers each


class Vector(types.Type):
    """A vector with as many numbers of a float type as a register holds."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype, self.lanes = dtype, BITS // dtype.bitwidth
        element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.llvm = ir.VectorType(element, self.lanes)
        super().__init__(name=f"Vector({self.lanes} x {dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)


def lanes(array):
    """How many numbers of the array's float type a vector holds."""
    return BITS // (8 * array.itemsize)


@overload(lanes, inline="always")
def _lanes(array):
    count = BITS // array.dtype.bitwidth  # a compile-time constant, so that loops over it are unrolled
    return lambda array: count


def _address(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def load(typing_context, array, index):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments)
        numbers = builder.load(builder.bitcast(address, vector.llvm.as_pointer()))
        numbers.align = array.dtype.bitwidth // 8  # arrays are aligned to their element size only
        return numbers

    return vector(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, vector):
    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments[:2])
        written = builder.store(arguments[2], builder.bitcast(address, vector.llvm.as_pointer()))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


@intrinsic
def zeros(typing_context, array):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        return ir.Constant(vector.llvm, [0.0] * vector.lanes)

    return vector(array), generate


@intrinsic
def multiply_add(typing_context, total, array, index, vector):
    def generate(context, builder, signature, arguments):
        total_value, array_value, index_value, vector_value = arguments
        number = builder.load(_address(context, builder, signature.args[1], array_value, index_value))
        nothing = ir.Constant(vector.llvm, ir.Undefined)
        first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
        spread = builder.shuffle_vector(first, nothing, everywhere)
        kind = ir.FunctionType(vector.llvm, [vector.llvm] * 3)
        name = f"llvm.fmuladd.v{vector.lanes}f{vector.dtype.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, kind, name), [spread, vector_value, total_value]
        )

    return vector(total, array, types.intp, vector), generate


@intrinsic
def transpose(typing_context, out, at, step, array, index, stride):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        _, at_value, step_value, _, index_value, stride_value = arguments

        def place(position, start, distance, number):
            array_type, value = signature.args[position], arguments[position]
            offset = builder.add(start, builder.mul(distance, ir.Constant(ir.IntType(64), number)))
            return builder.bitcast(_address(context, builder, array_type, value, offset), vector.llvm.as_pointer())

        rows = [builder.load(place(3, index_value, stride_value, r)) for r in range(vector.lanes)]
        for row in rows:
            row.align = array.dtype.bitwidth // 8
        distance = vector.lanes // 2
        while distance:  # swap the upper right and lower left quarters of the square, then of its quarters, and so on
            for r in range(vector.lanes):
                if not r & distance:
                    upper, lower, n = rows[r], rows[r + distance], vector.lanes  # n + i is lane i of lower
                    first = [n + i - distance if i & distance else i for i in range(n)]
                    second = [n + i if i & distance else i + distance for i in range(n)]
                    rows[r], rows[r + distance] = (
                        builder.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(ir.IntType(32), n), mask))
                        for mask in (first, second)
                    )
            distance //= 2
        for lane, row in enumerate(rows):
            builder.store(row, place(0, at_value, step_value, lane)).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(out, types.intp, types.intp, array, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def some_nonzero(typing_context, array, index, count):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        array_value, start, _ = arguments
        found = ir.Constant(ir.IntType(1), 0)
        for done in range(0, count.literal_value, vector.lanes):
            position = builder.add(start, ir.Constant(start.type, done))
            address = _address(context, builder, signature.args[0], array_value, position)
            numbers = builder.load(builder.bitcast(address, vector.llvm.as_pointer()))
            numbers.align = array.dtype.bitwidth // 8
            flags = builder.fcmp_unordered("!=", numbers, ir.Constant(vector.llvm, [0.0] * vector.lanes))
            bits = builder.bitcast(flags, ir.IntType(vector.lanes))
            wanted = (1 << min(count.literal_value - done, vector.lanes)) - 1
            asked = builder.and_(bits, ir.Constant(bits.type, wanted))
            found = builder.or_(found, builder.icmp_unsigned("!=", asked, ir.Constant(bits.type, 0)))
        return found

    return types.boolean(array, types.intp, count), generate

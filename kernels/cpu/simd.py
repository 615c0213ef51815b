"""Vector registers as a Numba type, for the one loop that the compiler does not optimise well by itself.

LLVM vectorises a plain loop over an array, but it does not keep a tile of the output of a matrix product in registers
over the loop that adds up its terms. Here a vector is an ordinary value: assigned to a variable, it stays in a
register. A matrix product needs only the first six functions; a convolution also those of a tile, a block of ``ROWS``
rows of two vectors each, which take most of 16 registers, or half of 32.

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
``load_tile(array, index)``, ``zero_tile(array)``
    A tile from array[index : index + ROWS · 2 lanes], row after row; a tile of zeros of the array's float type.
``add_outer_product(tile, array, places, first, index, left, right)``
    tile + the outer product of the ROWS numbers array[places[first + r] + index] and a row of the two vectors.
``store_tile(array, index, tile)``
    The inverse of ``load_tile``.
``store_rows(array, places, first, index, tile)``
    array[places[first + r] + index : ... + 2 lanes] = row r of the tile.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

BITS = 512 if binding.get_host_cpu_features().get("avx512f") else 256  # narrower machines use two registers each
ROWS = 8 if BITS == 512 else 6  # there are 32 registers of 512 bits, or 16 of 256


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


class Tile(types.Type):
    """``ROWS`` rows of two vectors."""

    def __init__(self, dtype: types.Float) -> None:
        self.vector = Vector(dtype)
        self.llvm = ir.ArrayType(self.vector.llvm, 2 * ROWS)
        super().__init__(name=f"Tile({ROWS} x 2 x {self.vector})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, tile):
        super().__init__(manager, tile, tile.llvm)


def lanes(array):
    """How many numbers of the array's float type a vector holds."""
    return BITS // (8 * array.itemsize)


@overload(lanes, inline="always")
def _lanes(array):
    count = BITS // array.dtype.bitwidth  # a compile-time constant, so that loops over it are unrolled
    return lambda array: count


def _address(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _load_vector(builder, vector, address):
    numbers = builder.load(builder.bitcast(address, vector.llvm.as_pointer()))
    numbers.align = vector.dtype.bitwidth // 8  # arrays are aligned to their element size only
    return numbers


def _store_vector(builder, vector, numbers, address):
    builder.store(numbers, builder.bitcast(address, vector.llvm.as_pointer())).align = vector.dtype.bitwidth // 8


def _spread(builder, vector, number):
    """The vector with this number in all lanes."""
    nothing = ir.Constant(vector.llvm, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    return builder.shuffle_vector(first, nothing, everywhere)


def _multiply_add(builder, vector, a, b, total):
    kind = ir.FunctionType(vector.llvm, [vector.llvm] * 3)
    name = f"llvm.fmuladd.v{vector.lanes}f{vector.dtype.bitwidth}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, total])


@intrinsic
def load(typing_context, array, index):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        return _load_vector(builder, vector, _address(context, builder, signature.args[0], *arguments))

    return vector(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, vector):
    def generate(context, builder, signature, arguments):
        _store_vector(builder, vector, arguments[2], _address(context, builder, signature.args[0], *arguments[:2]))
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
        return _multiply_add(builder, vector, _spread(builder, vector, number), vector_value, total_value)

    return vector(total, array, types.intp, vector), generate


@intrinsic
def transpose(typing_context, out, at, step, array, index, stride):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        _, at_value, step_value, _, index_value, stride_value = arguments

        def place(position, start, distance, number):
            array_type, value = signature.args[position], arguments[position]
            offset = builder.add(start, builder.mul(distance, ir.Constant(ir.IntType(64), number)))
            return _address(context, builder, array_type, value, offset)

        rows = [_load_vector(builder, vector, place(3, index_value, stride_value, r)) for r in range(vector.lanes)]
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
            _store_vector(builder, vector, row, place(0, at_value, step_value, lane))
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
            numbers = _load_vector(builder, vector, address)
            flags = builder.fcmp_unordered("!=", numbers, ir.Constant(vector.llvm, [0.0] * vector.lanes))
            bits = builder.bitcast(flags, ir.IntType(vector.lanes))
            wanted = (1 << min(count.literal_value - done, vector.lanes)) - 1
            asked = builder.and_(bits, ir.Constant(bits.type, wanted))
            found = builder.or_(found, builder.icmp_unsigned("!=", asked, ir.Constant(bits.type, 0)))
        return found

    return types.boolean(array, types.intp, count), generate


# ---- tiles ----


def _parts(context, builder, array_type, array, index, vector):
    """The addresses of the tile at array[index], vector by vector."""
    for part in range(2 * ROWS):
        position = builder.add(index, ir.Constant(index.type, part * vector.lanes))
        yield part, _address(context, builder, array_type, array, position)


@intrinsic
def load_tile(typing_context, array, index):
    tile = Tile(array.dtype)

    def generate(context, builder, signature, arguments):
        total, (array_value, start) = ir.Constant(tile.llvm, ir.Undefined), arguments
        for part, address in _parts(context, builder, signature.args[0], array_value, start, tile.vector):
            total = builder.insert_value(total, _load_vector(builder, tile.vector, address), part)
        return total

    return tile(array, types.intp), generate


@intrinsic
def zero_tile(typing_context, array):
    tile = Tile(array.dtype)

    def generate(context, builder, signature, arguments):
        return ir.Constant(tile.llvm, None)

    return tile(array), generate


@intrinsic
def add_outer_product(typing_context, tile, array, places, first, index, left, right):
    def generate(context, builder, signature, arguments):
        total, array_value, places_value, first_value, index_value, *columns = arguments
        for r in range(ROWS):
            position = builder.add(first_value, ir.Constant(first_value.type, r))
            place = builder.load(_address(context, builder, signature.args[2], places_value, position))
            address = _address(context, builder, signature.args[1], array_value, builder.add(place, index_value))
            number = _spread(builder, tile.vector, builder.load(address))
            for part, column in enumerate(columns, 2 * r):
                added = _multiply_add(builder, tile.vector, number, column, builder.extract_value(total, part))
                total = builder.insert_value(total, added, part)
        return total

    vector = tile.vector
    return tile(tile, array, places, types.intp, types.intp, vector, vector), generate


@intrinsic
def store_tile(typing_context, array, index, tile):
    def generate(context, builder, signature, arguments):
        array_value, start, total = arguments
        for part, address in _parts(context, builder, signature.args[0], array_value, start, tile.vector):
            _store_vector(builder, tile.vector, builder.extract_value(total, part), address)
        return context.get_dummy_value()

    return types.none(array, types.intp, tile), generate


@intrinsic
def store_rows(typing_context, array, places, first, index, tile):
    def generate(context, builder, signature, arguments):
        array_value, places_value, first_value, index_value, total = arguments
        for part in range(2 * ROWS):
            position = builder.add(first_value, ir.Constant(first_value.type, part // 2))
            place = builder.load(_address(context, builder, signature.args[1], places_value, position))
            start = builder.add(index_value, ir.Constant(index_value.type, part % 2 * tile.vector.lanes))
            address = _address(context, builder, signature.args[0], array_value, builder.add(place, start))
            _store_vector(builder, tile.vector, builder.extract_value(total, part), address)
        return context.get_dummy_value()

    return types.none(array, places, types.intp, types.intp, tile), generate

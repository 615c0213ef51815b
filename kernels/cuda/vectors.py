"""Loads and stores of 16 bytes, which Numba does not offer: one instruction for four numbers instead of four.

``load4(array, row, column)``
    The four numbers of a two-dimensional array from (row, column) on, as a tuple.
``store4(array, row, column, four)``
    Write the tuple ``four`` there.
``in_fours(array)``
    Whether both can be used: rows have a multiple of 4 numbers, and the first begins at a multiple of 16 bytes.

Arrays are C-contiguous, of float32 or float64 (for which the compiler emits two instructions), in global or in shared
memory. Columns are multiples of 4. Indices are not checked, and negative ones not counted from the end: both would cost
more instructions than the load.

The simulator runs Python, so there the three are plain Python functions.
"""

from kernels.cuda.device import SIMULATED

if SIMULATED:

    def load4(array, row, column):
        assert in_fours(array)
        assert column % 4 == 0
        return array[row, column], array[row, column + 1], array[row, column + 2], array[row, column + 3]

    def store4(array, row, column, four):
        assert in_fours(array)
        assert column % 4 == 0
        for i in range(4):
            array[row, column + i] = four[i]

    def in_fours(array):
        return array.ctypes.data % 16 == 0 and array.shape[1] % 4 == 0

else:
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    _32, _64 = ir.IntType(32), ir.IntType(64)

    def _fields(context, builder, array_type, array):
        """The address of the first number, and the width of a row."""
        fields = context.make_array(array_type)(context, builder, array)
        return fields.data, cgutils.unpack_tuple(builder, fields.shape, 2)[1]

    def _vector_at(context, builder, array_type, array, row, column):
        """The address of the four numbers, and their vector type."""
        data, width = _fields(context, builder, array_type, array)
        row, column = (builder.sext(n, _64) if n.type.width < 64 else n for n in (row, column))
        # "nsw" promises no overflow, so the compiler may increment addresses and hoist constants out of loops.
        place = builder.add(builder.mul(row, width, flags=("nsw",)), column, flags=("nsw",))
        number = builder.gep(data, [place], inbounds=True)
        vector = ir.VectorType(ir.FloatType() if array_type.dtype == types.float32 else ir.DoubleType(), 4)
        return builder.bitcast(number, vector.as_pointer(number.type.addrspace)), vector

    @intrinsic
    def load4(typing_context, array, row, column):
        def generate(context, builder, signature, arguments):
            address, _ = _vector_at(context, builder, signature.args[0], *arguments)
            four = builder.load(address)
            four.align = 16
            return cgutils.pack_array(builder, [builder.extract_element(four, _32(i)) for i in range(4)])

        return types.UniTuple(array.dtype, 4)(array, row, column), generate

    @intrinsic
    def store4(typing_context, array, row, column, four):
        def generate(context, builder, signature, arguments):
            address, vector = _vector_at(context, builder, signature.args[0], *arguments[:3])
            value = ir.Constant(vector, ir.Undefined)
            for i in range(4):
                value = builder.insert_element(value, builder.extract_value(arguments[3], i), _32(i))
            builder.store(value, address).align = 16
            return context.get_dummy_value()

        return types.none(array, row, column, four), generate

    @intrinsic
    def in_fours(typing_context, array):
        def generate(context, builder, signature, arguments):
            data, width = _fields(context, builder, signature.args[0], arguments[0])
            rest = builder.or_(builder.urem(builder.ptrtoint(data, _64), _64(16)), builder.urem(width, _64(4)))
            return builder.icmp_unsigned("==", rest, _64(0))

        return types.boolean(array), generate

"""An instruction that tells the processor what will be read soon, where it does not foresee that by itself."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def fetch(builder, pointer):
    """Have the line of the cache that a pointer points to fetched; it may point anywhere."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    instruction = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    for_reading, in_all_caches, data = number(0), number(3), number(1)
    builder.call(instruction, [builder.bitcast(pointer, byte), for_reading, in_all_caches, data])


@intrinsic
def prefetch(typing_context, values, index):
    """Have the element of an array that a flat index says fetched."""

    def instruction(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        fetch(builder, builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.void(values, index), instruction

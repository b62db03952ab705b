"""Look into pickles without running them: which names they would import."""

from __future__ import annotations

import pickletools
import re

from medseg_ext.sharing.words import words

_MOST_OPCODES = 5_000_000

#: What torch's own saving of tensors in containers needs; each of these builds data and nothing else.
TENSOR_NAMES = frozenset(
    {"collections OrderedDict", "torch Size", "torch device", "torch._utils _rebuild_parameter"}
    | {"torch._utils _rebuild_tensor_v2", "torch.serialization _get_layout", "torch.storage UntypedStorage"}
    | {
        f"torch {kind}Storage"
        for kind in words(
            """
            Float Double Half BFloat16 Long Int Short Char Byte Bool ComplexFloat ComplexDouble
            """
        )
    }
    | {
        f"torch {name}"
        for name in words(
            """
            float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128
            """
        )
    }
)

#: Opcodes by which a pickle builds an object or imports otherwise than by a plain GLOBAL.
_REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "STACK_GLOBAL", "PERSID"}


def pickle_faults(
    content: bytes, names: frozenset[str] = TENSOR_NAMES, pattern: str = r"(?!)", *, builds: bool = False
) -> list[str]:
    """What a pickle holds beside data.

    Args:
        content: one pickle, with nothing behind it.
        names: what it may import, module and name with a space between.
        pattern: regular expression for further ones.
        builds: whether it may make objects of what it imports (NEWOBJ), as TorchScript does of its own classes.

    Returns:
        Descriptions, each once; none for a pickle of data.
    """
    faults: list[str] = []
    end = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            end = (position or 0) + 1
            if count > _MOST_OPCODES:
                return [*faults, "a pickle that is too long"]
            if opcode.name == "GLOBAL" and argument not in names and not re.fullmatch(pattern, str(argument)):
                fault = f"a pickle that imports {str(argument).replace(' ', '.')}"
            elif opcode.name in _REFUSED and not (builds and opcode.name == "NEWOBJ"):
                fault = f"a pickle with {opcode.name}"
            else:
                continue
            if fault not in faults:
                faults.append(fault)
    except Exception as error:  # noqa: BLE001 - genops raises nearly anything for damaged pickles
        return [*faults, f"no readable pickle ({type(error).__name__})"]
    if end != len(content):
        faults.append("bytes behind the pickle")
    return faults

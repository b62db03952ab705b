"""Keep freed memory in the process instead of giving it back between steps."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Have glibc reuse freed blocks of any size.

    By default it returns large blocks to the kernel and fetches zeroed pages anew for every activation of every step,
    which costs a fifth to a third of a training step on two cores. Other C libraries are left alone.

    Returns:
        whether anything was set.

    Source: ``mallopt(3)``.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))

"""Ties the life of a child process to ours; knows nothing of what the child does."""

import ctypes
import signal

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent():
    """For `Popen(preexec_fn=...)`: the kernel kills the child when we are gone, however we went."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

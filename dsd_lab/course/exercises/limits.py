"""A time limit for code that may never end."""

import ctypes
import threading
from collections.abc import Callable
from typing import Any


class TimeIsUp(BaseException):
    """Raised inside code that took too long; not an Exception, so that `except Exception` inside
    a loop doesn't catch it.
    """


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call()` returns or raises. Raises TimeIsUp if it takes longer, and stops it at its next
    line of Python.

    It runs in a thread of its own, which works on every system and in a notebook's kernel. A single
    call of compiled code that never comes back can't be stopped so; it is left behind.
    """
    outcome: dict[str, Any] = {}

    def run():
        try:
            outcome["value"] = call()
        except BaseException as error:  # also SystemExit: it is the answer's, not the notebook's
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(TimeIsUp)
        )
        thread.join(1)
        raise TimeIsUp
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]

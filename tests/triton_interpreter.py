"""Triton's interpreter for tests: whether it is there, and without what makes it slow."""

from __future__ import annotations

import importlib.util
import os
import threading
from dataclasses import replace
from typing import Any

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when kernels are declared

MISSING = importlib.util.find_spec("triton") is None
WHY = "triton is not installed: bash run_scripts/setup.sh --with-triton"
with_triton = pytest.mark.skipif(MISSING, reason=WHY)


def hasten() -> None:
    """The interpreter would prepare the language anew at every call of a function in a kernel, and check every sum and
    product of integers for overflow, which is half of its time; the numbers are the same.
    """
    from triton.runtime import interpreter

    prepared = interpreter.InterpretedFunction.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fn.__module__.startswith("triton"):  # knows the language by another name
            return prepared(self, *args, **kwargs)
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call
    lock, execute = threading.RLock(), interpreter.GridExecutor.__call__

    def alone(self: Any, *args: Any, **kwargs: Any) -> None:
        with lock:  # ranks that are threads: there is one interpreter
            execute(self, *args, **kwargs)

    interpreter.GridExecutor.__call__ = alone
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)


if not MISSING:
    hasten()

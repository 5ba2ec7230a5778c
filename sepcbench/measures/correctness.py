"""Whether an engine computes what eager code computes, before it is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sepcbench.engines import TOLERANCES, allowed_error, output_error
from sepcbench.errors import EngineError
from sepcbench.measures.cases import Case

_SOUND = 0.1  # an eager network further than this from float32 overflowed, or is wrong itself


def check_outputs(found: Any, expected: Any, case: Case, exact: Callable[[], Any]) -> float:
    """Compare an engine with eager code of the same dtype; where that is coarse, with float32.

    Eager code that rounds is not the truth: of two ways to compute a network in half precision
    neither is right. So an engine may be twice as far from eager code as that is from float32; or
    it is right if it is near float32 itself, as where eager code computes positions in float16.

    Args:
        found: outputs of the engine.
        expected: those of eager code in the same dtype.
        case: engine and dtype.
        exact: gives those of eager code in float32 without TF32, on the same rounded weights and
            inputs; called only where it is needed.

    Returns:
        `output_error` to eager code of the same dtype.

    Raises:
        EngineError: the engine computes something else.
    """
    error, limit = output_error(found, expected), TOLERANCES[case.dtype]
    if error <= limit:
        return error
    further = ""
    if case.dtype != "fp32":
        truth = exact()
        rounding, off = output_error(expected, truth), output_error(found, truth)
        limit = allowed_error(case.dtype, rounding if rounding <= _SOUND else 0.0)
        if error <= limit or off <= TOLERANCES[case.dtype]:
            return error
        further = f"; {off:.2g} off eager fp32, which eager {case.dtype} is {rounding:.2g} off"
    raise EngineError(
        f"engine '{case.engine}' gives other outputs than eager code: relative error {error:.2g} "
        f"(norms, worst tensor) in {case.dtype}, above {limit:.2g}{further}"
    )

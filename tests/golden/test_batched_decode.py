"""The decode in tensors of fixed sizes against mmdetection 1.1 and 2.25."""

from __future__ import annotations

import pytest
from golden.scheme import Case, case_names
from golden.test_detections import build, maps_of

from sepcbench.heads.batched_decode import BatchedDecoder, to_detections

BOTH = ("fsaf3_small_boxes",)  # too large for a test that is to be quick


@pytest.mark.parametrize(
    "name", [name for name in case_names("post11/*", "post2x/*") if not name.endswith(BOTH)]
)
def test_maps_to_detections(name: str) -> None:
    case = Case(name)
    info, outputs = case.info, maps_of(case)
    batch = len(outputs[0].cls)
    factor = info["scale_factor"] if info["rescale"] else 1.0
    size, padded = tuple(info["img_shape"][:2]), tuple(info["pad_shape"][:2])
    found = BatchedDecoder(build(case), [size] * batch, [factor] * batch, padded)(outputs)
    assert found.exact.all()
    assert found.counts.tolist() == info["num_dets"]
    for i, image in enumerate(to_detections(found)):
        case.check_detections(i, *image[:3])

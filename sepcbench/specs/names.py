"""The closed lists of names that specs, suites and options choose from."""

from typing import Literal

Norm = Literal["none", "single", "independent", "integrated", "gn", "frozen"]
Dtype = Literal["fp32", "tf32", "fp16", "bf16"]
Scope = Literal["neck", "neck+head", "forward", "end-to-end", "pipeline"]
MeasureName = Literal["cost", "latency", "accuracy"]
CostConvention = Literal["mac", "mmdet", "paper"]
EngineName = Literal[
    "eager",
    "folded",
    "channels_last",
    "fused",
    "compiled",
    "graphed",
    "fused_graphed",
    "onnxruntime",
    "tensorrt",
]
Need = Literal["masks", "proposals"]

"""The closed lists of names that specs, suites and options choose from."""

from typing import Literal

Norm = Literal["none", "single", "independent", "integrated", "gn", "frozen"]
Dtype = Literal["fp32", "fp16", "bf16"]
Scope = Literal["neck", "neck+head", "forward", "end-to-end"]
MeasureName = Literal["cost", "latency", "accuracy"]
CostConvention = Literal["mac", "mmdet", "paper"]
EngineName = Literal["eager"]
Need = Literal["masks", "proposals"]

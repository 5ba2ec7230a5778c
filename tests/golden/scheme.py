"""Reference cases: draw their inputs and parameters again, and compare with their tensors."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


def case_names(*patterns: str) -> list[str]:
    """Names such as `sepc/sepc_B_train` of the stored cases that match, sorted."""
    found = [path for pattern in patterns for path in DATA.glob(f"{pattern}.json")]
    return sorted(str(path.relative_to(DATA).with_suffix("")) for path in found)


def draw(stream: str, shape: list[int], dist: dict[str, Any]) -> np.ndarray:
    """Draw float32 values from the PCG64 stream seeded by the crc32 of its name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(stream.encode())))
    if dist["dist"] == "normal":
        values = generator.standard_normal(shape) * dist.get("std", 1.0) + dist.get("mean", 0.0)
    elif dist["dist"] == "uniform":
        values = dist["lo"] + (dist["hi"] - dist["lo"]) * generator.random(shape)
    else:
        values = np.full(shape, dist["value"])
    return np.asarray(values, dtype="<f4")  # also where the shape is empty


def parameter_dist(key: str, shape: list[int], overrides: list[Any]) -> dict[str, Any]:
    """The distribution of a parameter or buffer by its published key; the first match wins."""
    for pattern, dist in overrides:
        if re.search(pattern, key):
            return dist
    last = key.rsplit(".", 1)[-1]
    if last == "running_mean":
        return {"dist": "normal", "std": 0.1}
    if last == "running_var":
        return {"dist": "uniform", "lo": 0.5, "hi": 1.5}
    if len(shape) >= 2:
        return {"dist": "normal", "std": 1 / np.sqrt(np.prod(shape[1:]))}
    if last == "bias":
        return {"dist": "normal", "std": 0.05}
    return {"dist": "uniform", "lo": 0.5, "hi": 1.5}


@dataclass(frozen=True)
class Case:
    """One stored case."""

    name: str

    @cached_property
    def info(self) -> dict[str, Any]:
        """The description."""
        return json.loads((DATA / f"{self.name}.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored arrays."""
        with np.load(DATA / f"{self.name}.npz") as stored:
            return dict(stored)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs, drawn again and checked."""
        drawn = {}
        for entry in self.info["inputs"]:
            stream = f"{self.info['input_salt']}|{entry['name']}"
            values = draw(stream, entry["shape"], entry)
            assert zlib.crc32(values.tobytes()) == entry["crc32"], stream
            tensor = torch.from_numpy(values)
            relu = self.info.get("input_transform") == "relu"
            drawn[entry["name"]] = tensor.relu() if relu else tensor
        return drawn

    @cached_property
    def params(self) -> dict[str, Tensor]:
        """Parameters and buffers by published key, drawn again and checked."""
        overrides = self.info.get("overrides", [])
        drawn = {}
        for key, entry in self.info["params"].items():
            if entry.get("dtype") == "int64":
                drawn[key] = torch.zeros(entry["shape"], dtype=torch.int64)
                continue
            stream = f"{self.info['param_salt']}|{key}"
            values = draw(stream, entry["shape"], parameter_dist(key, entry["shape"], overrides))
            assert zlib.crc32(values.tobytes()) == entry["crc32"], stream
            drawn[key] = torch.from_numpy(values)
        return drawn

    def levels(self, prefix: str) -> list[Tensor]:
        """The inputs `<prefix>0`, `<prefix>1`, ... (with an ending after the number: `x{}.cls`)."""
        pattern = prefix if "{}" in prefix else prefix + "{}"
        found = []
        while (name := pattern.format(len(found))) in self.inputs:
            found.append(self.inputs[name])
        return found

    def outputs(self, prefix: str = "") -> list[str]:
        """Names of the stored outputs that start with `prefix`."""
        return [name for name in self.info["outputs"] if name.startswith(prefix)]

    def check(self, name: str, actual: Tensor, atol: float = 2e-4, rtol: float = 1e-4) -> None:
        """Compare a tensor with a stored output: samples, stored channels, and the sum of sizes."""
        stored, values = self.info["outputs"][name], actual.detach().double().numpy()
        where = f"{self.name} {name}"
        assert list(values.shape) == stored["shape"], where
        if stored["stored"] == "full":
            np.testing.assert_allclose(values, self.arrays[name], rtol, atol, err_msg=where)
            return
        picked = values.ravel()[self.arrays[f"{name}@idx"]]
        np.testing.assert_allclose(picked, self.arrays[f"{name}@val"], rtol, atol, err_msg=where)
        if f"{name}@ch" in self.arrays:
            channels = values[:, self.arrays[f"{name}@chidx"]]
            np.testing.assert_allclose(
                channels, self.arrays[f"{name}@ch"], rtol, atol, err_msg=where
            )
        np.testing.assert_allclose(np.abs(values).sum(), stored["abssum"], 1e-4, err_msg=where)

    def check_gradient(self, name: str, actual: Tensor) -> None:
        """Compare sampled gradient elements: 95 % of them within 1 % of the largest."""
        stored, values = self.info["outputs"][name], actual.detach().double().numpy()
        if stored["stored"] == "full":
            picked, wanted = values.ravel(), self.arrays[name].ravel()
        else:
            picked = values.ravel()[self.arrays[f"{name}@idx"]]
            wanted = self.arrays[f"{name}@val"]
        largest = max(abs(stored["min"]), abs(stored["max"]))
        close = np.abs(picked - wanted) <= 0.01 * largest
        assert close.mean() >= 0.95, f"{self.name} {name}: {close.mean():.1%} close"

    def check_detections(self, image: int, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Compare detections of one image: one to one, in order but for near-equal scores."""
        wanted = self.arrays[f"det{image}.boxes"]
        classes = self.arrays[f"det{image}.labels"]
        assert len(boxes) == len(wanted), f"{self.name}: {len(boxes)} != {len(wanted)}"
        ours = torch.cat([boxes, scores[:, None]], dim=1).double().numpy()
        free = set(range(len(ours)))
        for i, (box, label) in enumerate(zip(wanted, classes)):
            fits = [
                j
                for j in sorted(free, key=lambda j, i=i: abs(j - i))
                if int(labels[j]) == label
                and np.abs(ours[j, :4] - box[:4]).max() <= 0.02
                and abs(ours[j, 4] - box[4]) <= 2e-4
            ]
            assert fits, f"{self.name}: no detection like number {i}, {box}, class {label}"
            moved = fits[0]
            assert moved == i or abs(ours[i, 4] - ours[moved, 4]) <= 2e-4, f"{self.name}: order {i}"
            free.remove(moved)


def close_norm(actual: Tensor, wanted: float, rel: float) -> bool:
    """Whether the L2 norm of a gradient is right; norms below 1 are noise (see README, data)."""
    norm = float(actual.detach().double().norm())
    return wanted < 1 or abs(norm - wanted) <= rel * wanted

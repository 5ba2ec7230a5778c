"""Pre-processing on the device, against the one that reads files."""

from dataclasses import replace

import pytest
import torch
from waiting import NoWaiting

from sepcbench.conventions import CONVENTIONS
from sepcbench.data.transforms import prepare
from sepcbench.measures.pipeline import prepare_into, preparing, raw_images, scale_of


@pytest.mark.parametrize("name", ["native", "torchvision", "detectron2"])
def test_it_is_what_reading_files_does(name):
    """Up to rounding to grey levels, which the one for files does and this one does not."""
    raw = raw_images((100, 160), 1, seed=0)
    how = replace(CONVENTIONS[name], short_side=100, long_side=160, interpolation="float")
    expected = prepare(raw[0].numpy(), how)
    assert expected.size == (100, 160)
    images = torch.empty(1, 3, 100, 160)
    prepare_into(images, raw, how)
    assert (images[0] - expected.image).abs().max() < 0.02 * images.abs().max()


def test_raw_images_are_smaller_uint8_and_the_same_for_a_seed():
    one, again = raw_images((800, 1344), 2, seed=1), raw_images((800, 1344), 2, seed=1)
    assert [image.shape for image in one] == [(480, 806, 3)] * 2
    assert one[0].dtype == torch.uint8
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[0], one[1])
    assert scale_of(one[0], (800, 1344)) == (1344 / 806, 800 / 480)


def test_every_image_of_a_batch_is_written():
    images = torch.full((3, 3, 20, 30), float("nan"), dtype=torch.float16)
    prepare_into(images, raw_images((20, 30), 3, seed=0), CONVENTIONS["native"])
    assert images.isfinite().all()


def test_nothing_but_the_images_comes_from_the_host_in_a_call():
    images, raw = torch.empty(2, 3, 20, 30), raw_images((20, 30), 2, seed=0)
    prepare = preparing(images, raw, CONVENTIONS["native"])
    with NoWaiting():
        prepare()
    with pytest.raises(AssertionError, match="lift_fresh"), NoWaiting():
        preparing(images, raw, CONVENTIONS["native"])

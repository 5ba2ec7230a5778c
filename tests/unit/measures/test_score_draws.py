"""Records of scores carry draws of the images, paired between rows on the same set."""

import json

import numpy as np
import pytest
from scored_sets import realistic

from sepcbench.codec import decode, encode
from sepcbench.data.coco import open_data
from sepcbench.measures import bootstrap
from sepcbench.measures.scoring import recall, score
from sepcbench.records import Accuracy, Recall

IMAGES = 40


def written(folder, images=IMAGES, objects=True, seed=0):
    """A COCO file of a made-up set, and detections on it."""
    case = realistic(images, classes=3, seed=seed)
    truth = case.objects
    annotations = [
        {
            "id": i + 1,
            "image_id": int(truth.image[i]) + 1,
            "category_id": int(truth.label[i]) + 1,
            "bbox": truth.box[i].tolist(),
            "area": float(truth.area[i]),
            "iscrowd": int(truth.crowd[i]),
        }
        for i in range(len(truth.image) if objects else 0)
    ]
    body = {
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "width": 640, "height": 640}
            for i in range(images)
        ],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(3)],
        "annotations": annotations,
    }
    path = folder / "set.json"
    path.write_text(json.dumps(body))
    found = [
        {
            "image_id": int(image) + 1,
            "category_id": int(label) + 1,
            "bbox": box.tolist(),
            "score": float(score),
        }
        for image, label, box, score in zip(
            case.found.image, case.found.label, case.found.box, case.found.score
        )
    ]
    return open_data(None, annotations=path), found


def test_ap_lies_in_its_interval_and_the_draws_scatter_around_it(tmp_path):
    data, found = written(tmp_path)
    record = score(data, found, variant="v", resamples=200)
    low, high = record.ap_ci95
    assert low < record.ap < high
    assert len(record.draws) == 200
    assert np.percentile(record.draws, 97.5) - np.percentile(record.draws, 2.5) == pytest.approx(
        high - low, abs=1e-5
    )
    assert f"{IMAGES} images" in record.drawn_from
    assert decode(Accuracy, json.loads(json.dumps(encode(record)))) == record


def test_recall_draws_ar_at_1000(tmp_path):
    data, found = written(tmp_path)
    record = recall(data, found, variant="v", resamples=100)
    assert record.ap_ci95[0] < record.ar1000 < record.ap_ci95[1]
    assert np.mean(record.draws) == pytest.approx(record.ar1000, abs=0.05)
    assert decode(Recall, json.loads(json.dumps(encode(record)))) == record


def test_draws_of_two_rows_are_of_the_same_images(tmp_path):
    """A detector that finds nothing on half of the images: what it loses goes with which are drawn.

    Were the draws not paired, the difference would scatter by both spreads.
    """
    data, found = written(tmp_path)
    full = score(data, found, variant="v", resamples=200)
    same = score(data, list(reversed(found)), variant="w", resamples=200)
    less = score(data, [f for f in found if f["score"] > 0.05], variant="x", resamples=200)
    assert full.drawn_from == same.drawn_from == less.drawn_from
    assert np.std(np.subtract(full.draws, less.draws)) < 0.5 * np.std(full.draws)
    assert np.corrcoef(full.draws, same.draws)[0, 1] > 0.99


def test_another_set_is_drawn_from_another_place(tmp_path):
    (tmp_path / "other").mkdir()
    one = score(*written(tmp_path), variant="v", resamples=2)
    other = score(*written(tmp_path / "other", seed=1), variant="v", resamples=2)
    assert one.drawn_from != other.drawn_from


@pytest.mark.parametrize(
    ("images", "objects", "resamples"), [(9, True, 50), (40, False, 50), (40, True, 0)]
)
def test_no_draws_of_few_images_of_no_objects_or_if_not_wanted(
    tmp_path, images, objects, resamples
):
    data, found = written(tmp_path, images, objects)
    for record in (
        score(data, found, variant="v", resamples=resamples),
        recall(data, found, variant="v", resamples=resamples),
    ):
        assert (record.ap_ci95, record.draws, record.drawn_from) == (None, (), "")


def test_records_without_draws_are_still_read(tmp_path):
    record = score(*written(tmp_path, images=5), variant="v")
    old = encode(record)
    for name in ("ap_ci95", "draws", "drawn_from"):
        del old[name]
    assert decode(Accuracy, old) == record


def test_how_many_draws_are_worked_on_at_once_has_no_say(tmp_path, monkeypatch):
    data, found = written(tmp_path)
    at_once = score(data, found, variant="v", resamples=70)
    monkeypatch.setattr(bootstrap, "MOST_NUMBERS", 1)
    assert score(data, found, variant="v", resamples=70) == at_once

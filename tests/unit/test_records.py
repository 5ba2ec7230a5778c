"""Records of earlier versions, which lack the fields that came later, are still read."""

import json

from unit.make import accuracy

from sepcbench.codec import decode, encode
from sepcbench.records import Accuracy, Recall
from sepcbench.store import KINDS

RECALL = Recall("v", "d", 2, 2000, None, 0.4, 0.5, 0.2, None, 0.7)


def test_an_accuracy_without_a_task_is_of_boxes():
    written = encode(accuracy())
    del written["task"]
    assert decode(Accuracy, json.loads(json.dumps(written))) == accuracy()
    assert accuracy().task == "bbox"


def test_recall_is_written_and_read():
    assert decode(KINDS["recall"], json.loads(json.dumps(encode(RECALL)))) == RECALL

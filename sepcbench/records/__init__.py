"""What was measured: frozen results with all their conditions, as JSON and back.

Units are in the names: `_s` seconds, `macs` multiply-adds (one multiply and one add count once),
AP and AR as fractions of 1. A value that does not exist is None, never NaN.
"""

from sepcbench.records.cost import Cost as Cost
from sepcbench.records.cost import Counts as Counts
from sepcbench.records.cost import Environment as Environment
from sepcbench.records.cost import Texts as Texts
from sepcbench.records.failure import NOT_LOOKED_AT as NOT_LOOKED_AT
from sepcbench.records.failure import Failure as Failure
from sepcbench.records.failure import cut_short as cut_short
from sepcbench.records.failure import interrupted as interrupted
from sepcbench.records.flattening import flat as flat
from sepcbench.records.latency import DeviceState as DeviceState
from sepcbench.records.latency import Floor as Floor
from sepcbench.records.latency import Latency as Latency
from sepcbench.records.latency import PartTime as PartTime
from sepcbench.records.latency import Ratio as Ratio
from sepcbench.records.latency import Split as Split
from sepcbench.records.rows import PUBLISHED as PUBLISHED
from sepcbench.records.rows import ClaimOutcome as ClaimOutcome
from sepcbench.records.rows import Origin as Origin
from sepcbench.records.rows import Published as Published
from sepcbench.records.rows import Results as Results
from sepcbench.records.rows import Row as Row
from sepcbench.records.rows import ScoreDifference as ScoreDifference
from sepcbench.records.rows import Seeded as Seeded
from sepcbench.records.scores import Accuracy as Accuracy
from sepcbench.records.scores import LevelShare as LevelShare
from sepcbench.records.scores import Recall as Recall
from sepcbench.records.scores import Scores as Scores
from sepcbench.records.scores import SizeBand as SizeBand
from sepcbench.records.training import Speed as Speed
from sepcbench.records.training import Training as Training

SCHEMA = 1

Record = Cost | Latency | Accuracy | Recall | Training | Failure

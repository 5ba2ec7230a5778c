"""The vocabulary: what a detector, a recipe and a measurement are, as frozen data.

No torch here. A spec says *what*; the tables `BACKBONES`, `NECKS`, `HEADS`, `NORMS` and so on
say *how* to build it. Every spec writes itself as JSON and back (`sepcbench.codec`). A new part
adds its class to the union at the end of its file: the `*_TYPES` tables are read off those.
"""

from typing import get_args

from sepcbench.conventions import CONVENTIONS as CONVENTIONS
from sepcbench.conventions import NATIVE as NATIVE
from sepcbench.conventions import Conventions as Conventions
from sepcbench.specs.backbones import BackboneSpec as BackboneSpec
from sepcbench.specs.backbones import ResNetSpec as ResNetSpec
from sepcbench.specs.backbones import TimmSpec as TimmSpec
from sepcbench.specs.backbones import TinySpec as TinySpec
from sepcbench.specs.heads import AnchorHeadSpec as AnchorHeadSpec
from sepcbench.specs.heads import AtssSpec as AtssSpec
from sepcbench.specs.heads import BoxStds as BoxStds
from sepcbench.specs.heads import FcosSpec as FcosSpec
from sepcbench.specs.heads import FreeAnchorSpec as FreeAnchorSpec
from sepcbench.specs.heads import FsafSpec as FsafSpec
from sepcbench.specs.heads import HeadSpec as HeadSpec
from sepcbench.specs.heads import RepPointsSpec as RepPointsSpec
from sepcbench.specs.heads import RetinaSpec as RetinaSpec
from sepcbench.specs.heads import TowerSpec as TowerSpec
from sepcbench.specs.names import CostConvention as CostConvention
from sepcbench.specs.names import Dtype as Dtype
from sepcbench.specs.names import EngineName as EngineName
from sepcbench.specs.names import MeasureName as MeasureName
from sepcbench.specs.names import Need as Need
from sepcbench.specs.names import Norm as Norm
from sepcbench.specs.names import Scope as Scope
from sepcbench.specs.necks import BfpSpec as BfpSpec
from sepcbench.specs.necks import BifpnSpec as BifpnSpec
from sepcbench.specs.necks import FpnSpec as FpnSpec
from sepcbench.specs.necks import HrfpnSpec as HrfpnSpec
from sepcbench.specs.necks import NasFpnSpec as NasFpnSpec
from sepcbench.specs.necks import NeckSpec as NeckSpec
from sepcbench.specs.necks import PafpnSpec as PafpnSpec
from sepcbench.specs.necks import PconvSpec as PconvSpec
from sepcbench.specs.necks import SepcSpec as SepcSpec
from sepcbench.specs.necks import SingleLevelSpec as SingleLevelSpec
from sepcbench.specs.parts import AnyBackbone as AnyBackbone
from sepcbench.specs.parts import AnyHead as AnyHead
from sepcbench.specs.parts import AnyNeck as AnyNeck
from sepcbench.specs.protocols import PROTOCOLS as PROTOCOLS
from sepcbench.specs.protocols import Protocol as Protocol
from sepcbench.specs.protocols import ProtocolName as ProtocolName
from sepcbench.specs.recipes import Recipe as Recipe
from sepcbench.specs.two_stage import MaskSpec as MaskSpec
from sepcbench.specs.two_stage import RcnnSpec as RcnnSpec
from sepcbench.specs.two_stage import RpnSpec as RpnSpec
from sepcbench.specs.variant import VariantSpec as VariantSpec

BACKBONE_TYPES: dict[str, type] = {cls.TYPE: cls for cls in get_args(BackboneSpec)}
NECK_TYPES: dict[str, type] = {cls.TYPE: cls for cls in get_args(NeckSpec)}
HEAD_TYPES: dict[str, type] = {cls.TYPE: cls for cls in get_args(HeadSpec)}

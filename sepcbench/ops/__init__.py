"""Operations on pyramids, anchors and boxes: what backbones, necks and heads are made of."""

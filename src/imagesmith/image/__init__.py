"""Pixels: decoding, geometry, masks, boxes, drawing and the result records."""

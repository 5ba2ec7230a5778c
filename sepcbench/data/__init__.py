"""Data sets in COCO format: finding and checking them, images to tensors, and a generated set."""

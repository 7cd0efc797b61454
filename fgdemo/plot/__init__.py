"""A checkpoint's gallery in the plane, as a page or a picture; no model is needed."""

"""The TFLite file as a data structure: read, cut, stitched and written without loading its weights."""

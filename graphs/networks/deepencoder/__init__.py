"""DeepEncoder, the vision tower of DeepSeek-OCR."""

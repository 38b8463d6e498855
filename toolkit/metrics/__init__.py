"""Every error measure, every judge of answers, and every limit."""

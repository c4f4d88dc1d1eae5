"""Trial lists, score files and keys: reading, writing and drawing."""

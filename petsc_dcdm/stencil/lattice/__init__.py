"""The grid that the graph of a matrix shows, and cells that the user tells row by row."""

"""The coarsest system of a hierarchy on coarse cells of several parts each, in compiled code."""

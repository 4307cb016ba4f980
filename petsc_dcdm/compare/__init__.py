"""The same system through every solver: one driver, its tables and its plots."""

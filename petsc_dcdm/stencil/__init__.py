"""A matrix read into conductances: grid, entries, symmetry, walls, plan; vectors to boxes and back."""

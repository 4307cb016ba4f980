"""The published network, its comparison and its ablation again."""

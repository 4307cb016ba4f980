"""What is learned: weights, the fields made from them, and the networks in torch."""

"""What is known of the GPU backend without a GPU, and what is measured of it where there is one."""

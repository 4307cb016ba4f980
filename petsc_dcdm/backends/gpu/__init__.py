"""The cycle and the loop in Triton kernels on a GPU; under Triton's interpreter on CPU tensors as well."""

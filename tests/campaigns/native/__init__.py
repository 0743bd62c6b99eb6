"""Long runs of the native kernels outside Python: literal sums, sanitizers, and mistakes planted in the kernels."""

"""What is computed: one folder an op, its contract beside its kernels."""

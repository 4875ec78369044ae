"""What only a GPU can show. A package, so that its test_ops.py is not taken for the CPU one."""

"""Machine code for GPUs that are not here: every Triton kernel compiled as the JIT would compile it
for each of its op's cases, its resources counted, its op's `asm` contract judged.

Needs triton 3.6 to 3.9 (`pip install isobath[asm]`) and no GPU, driver or ROCm. It does not run
code, so it says nothing about time; LDS bank conflicts and coalescing depend on addresses, which
only execution has, and are the emulator's to count.
"""

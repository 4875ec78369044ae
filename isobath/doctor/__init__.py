"""The doctor: whether isobath computes the right thing on this machine, and how fast.

machine.py says what the machine is and what it can reach; ops/examine.py below measures every op,
backend and case; whole.py compares the bundled model, or the user's, with the reference; shadow.py
does so op by op; gfx942.py has machine code emulated; report.py shows all of it; run.py puts it
together. The doctor judges and repairs nothing.
"""

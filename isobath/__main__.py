"""`python -m isobath`: the command line where its script is not installed."""

from isobath.cli import main

main()

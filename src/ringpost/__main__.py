"""python -m ringpost: the command line."""

from ringpost.cli import main

main()

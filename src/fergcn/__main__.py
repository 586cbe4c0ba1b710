"""`python -m fergcn` is the `fergcn` command."""

from fergcn.cli import main

main()

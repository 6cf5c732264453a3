"""`python -m service.cli`: the same as `deferd`."""

from service.cli import main

main()

"""The mail daemon: each room a mail noun, `daemon.py` the only file that knows them all."""

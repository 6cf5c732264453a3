"""A job and its envelope: reading .eml, .yaml and .json, addresses, composing, bounces.

Nothing here opens a file, a socket or a clock: octets in, checked values out.
"""

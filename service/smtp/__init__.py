"""The client's half of SMTP (RFC 5321), sans-IO: replies in, commands and outcomes out.

Nothing in this room sees a socket, a clock, a Deferred or a log.
"""

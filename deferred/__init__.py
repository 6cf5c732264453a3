"""How to wait: Deferreds, a reactor, and transports, in the standard library alone.

`deferred.defer` holds results that have not come yet, `deferred.failure` errors on their way down a chain,
`deferred.reactor` the loop that makes both happen. Nothing here knows of mail, and nothing here logs: a failure that
nobody took goes to a hook (`deferred.defer.set_unhandled_error_hook`).
"""

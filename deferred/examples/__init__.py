"""The four listings of Twisted 8.2's "Asynchronous Programming with Twisted", in today's names; each can be run.

one_callback    a page is fetched, and a callback gets its contents
two_callbacks   the first callback's result is what the second one gets
errback         a page that does not exist: the failure goes down the errback chain
send_email      connect, wait, check, send, wait for the confirmation, disconnect: each wait is a Deferred
"""

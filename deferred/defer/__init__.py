"""Results that have not come yet: the Deferred, and what is built of it.

Twisted's concepts under Twisted's names in snake_case. A file a noun: `deferred` the chain itself, `results` those
there already, `coroutines`, `groups` of several, `locks`, `queues`, `unhandled` errors, and `errors`.
"""

from deferred.defer.coroutines import ensure_deferred, inline_callbacks
from deferred.defer.deferred import Deferred
from deferred.defer.errors import (
    AlreadyCalledError,
    CancelledError,
    FailureGroup,
    FirstError,
    NotACoroutineError,
    QueueOverflow,
    QueueUnderflow,
)
from deferred.defer.groups import DeferredList, gather_results, race
from deferred.defer.locks import DeferredLock, DeferredSemaphore
from deferred.defer.queues import DeferredQueue
from deferred.defer.results import execute, fail, maybe_deferred, succeed
from deferred.defer.unhandled import get_debugging, set_debugging, set_unhandled_error_hook

__all__ = [
    "AlreadyCalledError",
    "CancelledError",
    "Deferred",
    "DeferredList",
    "DeferredLock",
    "DeferredQueue",
    "DeferredSemaphore",
    "FailureGroup",
    "FirstError",
    "NotACoroutineError",
    "QueueOverflow",
    "QueueUnderflow",
    "ensure_deferred",
    "execute",
    "fail",
    "gather_results",
    "get_debugging",
    "inline_callbacks",
    "maybe_deferred",
    "race",
    "set_debugging",
    "set_unhandled_error_hook",
    "succeed",
]

"""An error on its way down a chain: an exception, and where it was raised, as a value to hand around.

A `Failure` keeps the traceback that its exception had when the Failure was made, and puts it back whenever the
exception is raised again: re-raising adds nothing, and what is read at the end is where the error came from. It is the
Failure that knows: the exception's own `__traceback__` is whatever the last who raised it has made of it.
A traceback keeps the frames it names, and all that they hold, alive; `Failure.clean_failure` turns it into text.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Generator
from traceback import TracebackException
from types import TracebackType
from typing import Any, Literal, NoReturn, TextIO, TypeVar, final, overload

E = TypeVar("E", bound=BaseException)
Y = TypeVar("Y")

ErrorType = type[E]  # inside Failure, `type` is its property


class NoCurrentExceptionError(Exception):
    """A Failure was asked for without an exception, where none was being handled."""


class Detour:
    """What is not handed to the next callback when one returns it: a Failure or a Deferred. For a single fast check."""

    __slots__ = ()


@final
class Failure(Detour):
    """An exception as a value.

    `value` is the exception, `type` its class, and `tb` its traceback: None once cleaned, or if it was never raised.
    """

    __slots__ = ("__weakref__", "_text", "tb", "value")

    value: BaseException
    tb: TracebackType | None

    def __init__(self, value: BaseException | None = None) -> None:
        """Wrap `value`, or the exception that is being handled.

        Raises `NoCurrentExceptionError` if there is neither.
        """
        if value is None:
            value = sys.exception()
            if value is None:
                raise NoCurrentExceptionError("there is no exception to make a Failure of")
        self.value = value
        self.tb = value.__traceback__
        self._text: TracebackException | None = None

    @property
    def type(self) -> ErrorType[BaseException]:
        """The exception's class."""
        return self.value.__class__

    @overload
    def check(self, *error_types: ErrorType[E]) -> ErrorType[E] | None: ...
    @overload
    def check(self, *error_types: ErrorType[E] | str) -> ErrorType[E] | str | None: ...
    def check(self, *error_types: ErrorType[E] | str) -> ErrorType[E] | str | None:
        """The first of `error_types` that the exception is an instance of, or None.

        A type may also be its dotted name ("builtins.OSError"), which asks for no import.
        """
        names: set[str] | None = None
        for error_type in error_types:
            if isinstance(error_type, str):
                names = names or {f"{kind.__module__}.{kind.__qualname__}" for kind in self.type.__mro__}
                if error_type in names:
                    return error_type
            elif isinstance(self.value, error_type):
                return error_type
        return None

    @overload
    def trap(self, *error_types: ErrorType[E]) -> ErrorType[E]: ...
    @overload
    def trap(self, *error_types: ErrorType[E] | str) -> ErrorType[E] | str: ...
    def trap(self, *error_types: ErrorType[E] | str) -> ErrorType[E] | str:
        """Like `check`, but raise the exception if it is none of them, for the next errback to deal with."""
        matched = self.check(*error_types)
        if matched is None:
            self.raise_exception()
        return matched

    def raise_exception(self) -> NoReturn:
        """Raise the exception, with the traceback it had."""
        value, tb = self.value, self.tb
        try:
            raise value.with_traceback(tb)
        finally:
            # this frame is in the traceback from now on: it must not point back at it
            del self, value, tb

    def throw_exception_into_generator(self, generator: Generator[Y, Any, Any] | Coroutine[Y, Any, Any]) -> Y:
        """Raise the exception inside `generator` (or coroutine) where it waits; return what it yields next."""
        value = self.value.with_traceback(self.tb)
        try:
            return generator.throw(value)
        finally:
            del self, value

    def get_error_message(self) -> str:
        """The exception's own words."""
        try:
            return str(self.value)
        except Exception as error:  # noqa: BLE001 - an error that cannot tell itself must not hide the one it tells of
            return f"<{self.type.__qualname__}, whose str() raised {error.__class__.__qualname__}>"

    def get_traceback(self, detail: Literal["default", "brief"] = "default") -> str:
        """The traceback as Python prints it with its causes; "brief" is one line for each frame and no source.

        Raises `ValueError` for another `detail`.
        """
        if detail not in ("default", "brief"):
            raise ValueError(f"a traceback's detail is 'default' or 'brief', not {detail!r}")
        text = self._text or TracebackException(self.type, self.value, self.tb)
        if detail == "default":
            return "".join(text.format())
        lines = [f"Traceback: {self._title()}"]
        lines += [f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in text.stack]
        return "\n".join(lines) + "\n"

    def get_brief_traceback(self) -> str:
        """`get_traceback("brief")`."""
        return self.get_traceback("brief")

    def print_traceback(self, file: TextIO | None = None, detail: Literal["default", "brief"] = "default") -> None:
        """Write the traceback to `file`, by default standard error."""
        print(self.get_traceback(detail), end="", file=file or sys.stderr)

    def clean_failure(self) -> None:
        """Keep the traceback as text only, and let go of the frames: the exception's, its causes' and its group's."""
        if self._text is None:
            self._text = TracebackException(self.type, self.value, self.tb)
        self.tb = None
        pending: list[BaseException | None] = [self.value]
        seen: set[int] = set()
        while pending:
            error = pending.pop()
            if error is None or id(error) in seen:
                continue
            seen.add(id(error))
            error.__traceback__ = None
            pending += (error.__cause__, error.__context__)
            if isinstance(error, BaseExceptionGroup):
                pending += error.exceptions

    def _title(self) -> str:
        return f"{self.type.__module__}.{self.type.__qualname__}: {self.get_error_message()}"

    def __repr__(self) -> str:
        return f"<deferred.failure.Failure {self._title()}>"

    def __str__(self) -> str:
        return f"[Failure instance: {self.get_brief_traceback()}]"


def without_frames(error: E) -> E:
    """The error, without the frames that it has been through, and without what it was raised amid.

    For one that is told by its words alone: whoever met it may keep it, and its frames would keep them.
    """
    error.__traceback__ = error.__context__ = None
    return error


def failure_from(error: BaseException, given: object) -> Failure:
    """The Failure for what a callback has just raised; `given` is what it was called with.

    An errback that raises the error it was given passes it on, as if it had returned its Failure: the frames it went
    through meanwhile are dropped, or each errback would lengthen the traceback and point back at the Failure.
    """
    if isinstance(given, Failure) and given.value is error:
        error.__traceback__ = given.tb
        return given
    tb = error.__traceback__
    if tb is not None and tb.tb_next is not None:
        # the first entry is the chain that called
        error.__traceback__ = tb.tb_next
    return Failure(error)

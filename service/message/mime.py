"""How the email package writes what we compose: lines as on the wire, in seven bits."""

from __future__ import annotations

from email.headerregistry import BaseHeader, HeaderRegistry
from email.policy import SMTP
from typing import Final


class _Kinds(HeaderRegistry):
    """Makes a class for each kind of field, where the email package makes one for each field: classes are in cycles,
    which only the garbage collector frees."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        kind = name.lower()
        if kind not in self.registry:
            return super().__getitem__(name)
        if kind not in self._made:
            self._made[kind] = super().__getitem__(name)
        return self._made[kind]


POLICY: Final = SMTP.clone(cte_type="7bit", header_factory=_Kinds())

"""A file of tokens as a test wants it: made, changed and taken back while a server runs."""

import hashlib
import os
from pathlib import Path
from typing import Any


class TokenFile:
    """`path` has mode 0600, and is written anew at each change, as an editor does: another file takes its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, str] = {}
        self._write()

    def add(self, token: str, subject: str, **more: Any) -> str:
        """The token is good from now on; `more` is TOML, or a list of names."""
        fields = {"subject": f'"{subject}"', "sha256": f'"{hashlib.sha256(token.encode()).hexdigest()}"', **more}
        self._entries[token] = "\n".join(f"{name} = {value}" for name, value in fields.items())
        self._write()
        return token

    def remove(self, token: str) -> None:
        """It is not good any more."""
        del self._entries[token]
        self._write()

    def _write(self) -> None:
        text = "\n\n".join(f"[[token]]\n{entry}" for entry in self._entries.values())
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o600)
        os.replace(fresh, self.path)


def bearer(token: str) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {token}"}

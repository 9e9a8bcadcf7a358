"""The gateway's side: the wire, the client, the pool of workers, dispatch, and the gateway itself."""

from typing import Final

VERSION: Final = "0.1.0.dev0"
"""Of what CHANGELOG.md calls unreleased."""

"""The TCP proxy that breaks the network, by the name that our tests know."""

from app.testproxy import Proxy

__all__ = ["Proxy"]

"""Maintainers' tools that make the worlds' data; users never run them."""

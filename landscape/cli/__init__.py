"""The console command `landscape`."""

from landscape.cli._main import main

__all__ = ["main"]

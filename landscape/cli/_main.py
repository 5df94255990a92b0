"""The command and its subcommands, each loaded only when it is called: `landscape --help` must be quick."""

from __future__ import annotations

import importlib
from typing import Any

import click

from landscape import __version__
from landscape._errors import LandscapeError
from landscape._text import visible
from landscape.cli._output import any_encoding, say

_SUBCOMMANDS = {
    "certify": "Write a generalisation bound as a file, or verify one.",
    "connect": "Measure the paths between two checkpoints, and their barriers.",
    "demo": "Train small networks on real data and draw the project's figures.",
    "describe": "Measure how many bits describe the labels of a data set, given a model that learns them.",
    "measure": "Measure saved checkpoints as the callbacks measure a training.",
    "plan": "Say what the callbacks would cost in a training.",
    "plot": "Draw a figure from run files.",
    "repair": "Say what a killed training has left in a run file, and write a clean copy.",
    "report": "Write one HTML page about run files.",
    "show": "Print what a run file holds.",
}
_INTERRUPTED = 130


class _LazyGroup(click.Group):
    """Loads a subcommand's module when it is invoked, and ends every foreseen failure with one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUBCOMMANDS:
            return None
        return importlib.import_module(f"landscape.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUBCOMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> Any:
        with any_encoding():
            return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.args = (visible(error.message, keep="\n"),)
            vars(error)["message"] = error.args[0]  # which click declares final, and prints
            raise
        except LandscapeError as error:
            say(f"Error: {visible(error)}", err=True)
        except BrokenPipeError:  # the reader of our output has gone, as in `landscape show run.h5 | head -1`
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            say(visible(f"Error: {where}{error.strerror or error}."), err=True)
        except KeyboardInterrupt:
            say("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)
        return ctx.exit(1)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  landscape show lightning_logs/version_0/landscape.h5",
)
@click.version_option(__version__, prog_name="landscape")
def main() -> None:
    """Look at the loss landscapes that trainings have recorded."""

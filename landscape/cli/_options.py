"""Options that several subcommands share: what is measured, on which data, by which loss."""

from __future__ import annotations

import click

from landscape.cli._targets import Target

model_option = click.option(
    "--model",
    type=Target(),
    required=True,
    help="A LightningModule class, called with the checkpoint's hyper-parameters, or a function that returns a new "
    "module at each call.",
)
data_option = click.option(
    "--data",
    type=Target(),
    required=True,
    help="Training batches, a DataLoader or a LightningDataModule, or a function that returns one.",
)
held_out_option = click.option("--held-out", type=Target(), help="Other batches to measure on as well, likewise.")
loss_option = click.option(
    "--loss",
    type=Target(),
    help="Loss function of (output, target).  [default: a LightningModule's own training_step, else cross-entropy]",
)
batches_option = click.option("--batches", type=click.IntRange(min=1), help="Take so many batches only.")

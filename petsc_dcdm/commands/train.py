"""`petsc-dcdm train`: which network's command is meant. Imports torch only once a training is asked for."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from petsc_dcdm.network.registry import NETWORKS


def add_train_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train``; the parsed arguments carry the function to call as ``run``, which returns the exit
    code.
    """
    trained = [kind for kind, network in NETWORKS.items() if network.train]
    parser = subparsers.add_parser("train", help="train a network and write its weights file")
    parser.add_argument("network", choices=sorted(trained), help="its options: petsc-dcdm train NETWORK --help")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Parse the network's own options and train it; 130 when that is interrupted from the keyboard."""
    command = import_module(NETWORKS[args.network].train)
    parser = argparse.ArgumentParser(prog=f"petsc-dcdm train {args.network}")
    command.add_arguments(parser)
    options = parser.parse_args(args.options)
    if getattr(options, "matrix", None):  # reads matrices, which nothing in training/ does
        command = import_module("petsc_dcdm.commands.finetune")
    try:
        return int(command.run(options))
    except KeyboardInterrupt:
        print("petsc-dcdm: interrupted; nothing was written.", file=sys.stderr)
        return 130

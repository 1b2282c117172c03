"""torchrun with its own arguments, but quiet about a mistake that a worker has already explained.

A command that meets a user's mistake prints one line and exits with status 2. torchrun would bury that line
under its log and a traceback of its own. This one exits with the worker's status and, for status 2, and for that of
who writes to a pipe that nobody reads any more, says nothing more; for any other failure it prints torchrun's report of
which rank failed, and how. Ctrl-C ends the workers with SIGTERM.
"""

import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from dist_s2s.cli.outputs import READER_GONE

USER_ERROR = 2


def hold_agent_log() -> logging.handlers.MemoryHandler:
    """Keep what the elastic agent logs until it is known whether anybody needs it."""
    log = logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL)
    log.setTarget(logging.StreamHandler())
    agent = logging.getLogger("torch.distributed.elastic")
    agent.addHandler(log)
    agent.propagate = False
    return log


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Ask the workers to stop as SIGTERM would: SIGINT makes every one of them print a KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave workers behind
    print("\ninterrupted: stopping the workers", file=sys.stderr)
    raise SignalException("interrupted", signal.SIGTERM)


def launch(arguments: Sequence[str]) -> int:
    """Run the job that torchrun's ``arguments`` describe, and return its exit status."""
    parser = get_args_parser()
    parser.allow_abbrev = False  # it would take a worker's --run for one of its own that is cut short, and refuse it
    args = parser.parse_args(list(arguments))
    if args.standalone:
        args.local_addr = args.local_addr or "127.0.0.1"  # otherwise the host's name is looked up
    args.signals_to_handle = "SIGTERM,SIGHUP,SIGQUIT"
    # What torchrun would set, after four lines about it; a rank takes its share of the cores nevertheless.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, interrupt)
    log = hold_agent_log()
    try:
        with TemporaryDirectory(prefix="torchrun-") as folder:  # torchrun's own would stay
            args.log_dir = args.log_dir or folder
            run(args)
    except ChildFailedError as error:
        for status in (USER_ERROR, READER_GONE):
            if any(failure.exitcode == status for failure in error.failures.values()):
                log.buffer.clear()
                return status
        log.flush()
        print(error, file=sys.stderr)
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as stop:
        log.buffer.clear()
        interrupted = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return 128 + (signal.SIGINT if interrupted else stop.sigval)
    finally:
        log.flush()
    return 0


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))

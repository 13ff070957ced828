"""``hwnas`` and ``python -m hwnas``."""

import signal
import sys


def main() -> int:
    """Run the command line; returns its exit code."""
    # While the first modules load nothing can be lost, and Ctrl-C ends the process without a traceback.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hwnas.cli.main import main as command_line

    signal.signal(signal.SIGINT, handler)
    return command_line()


if __name__ == "__main__":
    sys.exit(main())

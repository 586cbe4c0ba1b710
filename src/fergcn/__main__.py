"""`python -m fergcn` is the `fergcn` command."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is one line and exit code 130, also while it is imported."""
    try:
        from fergcn.cli import main as run

        run()
    except KeyboardInterrupt:
        print("fergcn: stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

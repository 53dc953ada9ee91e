"""`python -m fabula`: the command line."""

from fabula.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

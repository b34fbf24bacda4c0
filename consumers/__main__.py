"""Run `drx-consumer` as `python -m consumers`."""

from consumers.cli import main

if __name__ == "__main__":
    main()

"""`python -m consumers` is `drx-consumer`."""

from consumers.cli import main

if __name__ == "__main__":
    main()

"""`python -m bridge` is `drx-bridge`."""

from bridge.cli import main

if __name__ == "__main__":
    main()

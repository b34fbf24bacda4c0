"""The page of a local stack in a real Chromium: `make page`."""

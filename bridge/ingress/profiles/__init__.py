"""Dialects of senders: `drx_standard.py`, and a mapping file for each vendor, which `lookup.py` names in `SHIPPED`."""

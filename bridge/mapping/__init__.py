"""Map bodies to events: strict JSON, profiles of senders, and the language of mapping files.

`drx_standard.py` and a mapping file for each vendor are the profiles that ship; `lookup.py` names them in `SHIPPED`.
"""

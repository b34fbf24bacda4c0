"""The way of records once they are read: handled, settled once and in order, parked, released."""

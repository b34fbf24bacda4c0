"""Keeps an EHR's FHIR R4 server up to date with the events of each prescription."""

"""Keeps an EHR's FHIR R4 server up to date with what happens to each prescription."""

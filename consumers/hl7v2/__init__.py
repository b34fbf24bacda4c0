"""Consumer that sends each prescription's events as HL7 v2 messages over MLLP."""

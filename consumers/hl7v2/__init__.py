"""Consumer that tells a receiver of HL7 v2 messages what becomes of each prescription, over MLLP."""

"""The seed of all random choices in the faults: from the environment, or drawn at the start."""

SEED_VARIABLE = "DRX_FAULTS_SEED"

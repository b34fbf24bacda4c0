"""The seed of all that is left to chance in the faults: given in the environment, or drawn when the run begins."""

SEED_VARIABLE = "DRX_FAULTS_SEED"

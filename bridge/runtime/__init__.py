"""Parts of every process: lifecycle, logging, metrics, health."""

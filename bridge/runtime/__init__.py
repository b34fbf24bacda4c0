"""What every process needs: lifecycle, logging, metrics, health."""

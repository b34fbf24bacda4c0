"""How deliveries prove that they came from their source: one module per scheme, all pure."""

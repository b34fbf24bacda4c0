"""How deliveries are authenticated: one module per scheme, all pure."""

"""What candidates may vary besides layout, batch, ZeRO stage and interval: one file a dimension."""

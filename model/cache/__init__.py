"""What encoders give, kept on disk: each clip and each caption is encoded once."""

"""The networks: building blocks and encoders from features to embeddings."""

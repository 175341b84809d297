"""Geometry of embeddings: blocks, clusters, neighbours."""
